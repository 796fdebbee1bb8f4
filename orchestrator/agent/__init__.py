"""The agent: one per host, standard library only, Python 3.8 or newer.

It travels to the hosts as one zip file (`agent.pyz`, made by `orchestrator.render`), so nothing here
may import the rest of the package. On a host there are three kinds of our processes:

- the *keeper* (`keeper.py`), started by `node.sh`, which ends everything if the agent is killed;
- the *agent* (`main.py`), which talks to the supervisor and starts the training launcher;
- one *rank shim* (`rank.py`) around every rank, which sees the rank end and says how.
"""
