"""The parts of `pipeline chaos`: the plan, the faults it may hold, proxies, and how they are dealt."""
