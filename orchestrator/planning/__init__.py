"""What `orchestrate plan` tells of a job before the queue: one document, and how it is drawn."""

from orchestrator.planning.document import PlanDocument
from orchestrator.planning.estimates import Estimates, Variant, estimates

__all__ = ["Estimates", "PlanDocument", "Variant", "estimates"]
