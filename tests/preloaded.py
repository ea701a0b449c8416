"""What a command imports that takes seconds: imported once, in the process that commands are forked from."""

import gc
from importlib import import_module

from melanoma.terminal import quiet_native_imports

_LATE = (
    "alembic.command", "git", "hydra._internal.hydra", "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store", "opentelemetry.sdk.metrics", "sqlalchemy.dialects.sqlite",
)  # fmt: skip
_ENTRIES = (
    "cli", "registry.history", "registry.promote", "report.tables", "serving.app", "serving.serve", "sweeps.sweep",
    "workflows.compare", "workflows.evaluate", "workflows.nested", "workflows.predict", "workflows.train",
)  # fmt: skip

with quiet_native_imports():
    for name in (*_LATE, *(f"melanoma.{entry}" for entry in _ENTRIES)):
        import_module(name)
    # A second in each process that saves a model: which package each installed module is of.
    import_module("mlflow.utils.requirements_utils")._init_packages_to_modules_map()
    import_module("melanoma.tracking.source").installed_packages()

gc.collect()
gc.freeze()
