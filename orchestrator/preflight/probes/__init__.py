"""What runs on each host during `orchestrate check`; Python 3.8 and its standard library only.

The package travels with the agent's in one zip file, which takes the place of `agent.pyz`: the run's own
`node.sh` starts it, so workdir, environment, setup lines, container and python are those of a run.
"""
