"""Model configurations with `unified_memory` settings: checked, and converted into what a real server takes."""

from .model import OWN_BACKENDS, ConfigError, Model, Problem, check, convert, read
from .repository import find_models, find_one

__all__ = ["OWN_BACKENDS", "ConfigError", "Model", "Problem", "check", "convert", "find_models", "find_one", "read"]
