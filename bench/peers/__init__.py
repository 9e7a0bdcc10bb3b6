"""What runs in processes of its own beside the agent: servers, and the bare loops it is compared with."""
