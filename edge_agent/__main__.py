"""`python -m edge_agent`: the same as `edge-agent`."""

from edge_agent.cli import main

main()
