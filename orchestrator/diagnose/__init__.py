"""Say in one place what failed first in a run, what kind of failure it is, and what to try."""

from orchestrator.diagnose.make import diagnose, read_diagnosis
from orchestrator.diagnose.model import Diagnosis, Evidence, Suspect

__all__ = ["Diagnosis", "Evidence", "Suspect", "diagnose", "read_diagnosis"]
