"""A run's bill before it is paid for: operations, bytes, memory and hours of every stage, from shapes and lengths."""

from hones.plan.forecast import Forecast, plan
from hones.plan.request import Request, request_of

__all__ = ["Forecast", "Request", "plan", "request_of"]
