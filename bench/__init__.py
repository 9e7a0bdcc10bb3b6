"""The benchmarks: what a reading costs beside the bare library in the same run, and whether the bars hold."""
