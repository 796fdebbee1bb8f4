"""Train one model on many machines from one job file.

The way of the data is `job.yaml -> JobSpec -> HostPool -> LaunchPlan -> Bundle -> run directory`,
then one supervisor per run, one agent per host, and one verdict. ARCHITECTURE.md shows which module
owns which step.
"""

__version__ = "0.1.0"
