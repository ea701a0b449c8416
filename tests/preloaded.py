"""What a command imports that takes seconds: imported once, in the process that commands are forked from."""

import melanoma.cli
from melanoma.terminal import quiet_native_imports

with quiet_native_imports():
    import melanoma.registry.history
    import melanoma.registry.promote
    import melanoma.report.tables
    import melanoma.serving.app
    import melanoma.serving.serve
    import melanoma.sweeps.sweep
    import melanoma.workflows.compare
    import melanoma.workflows.evaluate
    import melanoma.workflows.nested
    import melanoma.workflows.predict
    import melanoma.workflows.train  # noqa: F401
