"""What `orchestrate plan` tells of a job before the queue: one document, and how it is drawn."""

from orchestrator.forecast.document import PlanDocument
from orchestrator.forecast.estimates import Estimates, Variant, estimates

__all__ = ["Estimates", "PlanDocument", "Variant", "estimates"]
