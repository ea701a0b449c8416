"""Call HLO that TensorFlow wrote as a function within jax.jit: HLO, then StableHLO, then jax.export.Exported.

JAX has no public way to do this. Written for JAX 0.11; other versions may have moved the private parts.
"""
# mypy: disable-error-code="import-not-found"

import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax._src import xla_bridge
from jax._src.interpreters import mlir
from jax._src.lib import _jax, xla_client
from jax._src.lib.mlir import ir
from jax._src.lib.mlir.dialects import func, hlo

jax.config.update("jax_enable_x64", True)  # the step number is an int64

# Of the module as a whole; StableHLO's portable form has no place for them.
ATTRIBUTES = ("cross_program_prefetches", "input_output_alias", "is_dynamic", "use_auto_spmd_partitioning")


def load(path: Path, signature: dict[str, list]) -> Callable[..., tuple]:
    """Return a function of the module's arguments that gives a tuple of its results.

    Args:
        path: A gzipped HloModuleProto.
        signature: Shape and type of each of the `arguments` and `results`.
    """
    arguments, results = (
        [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in signature[side]] for side in ("arguments", "results")
    )

    def zeros(*_: Any) -> tuple:
        return tuple(jnp.zeros(one.shape, one.dtype) for one in results)

    # A function of the same signature, for all that Exported holds besides the module.
    stand_in = export.export(jax.jit(zeros, keep_unused=True))(*arguments)
    module = _portable(gzip.decompress(path.read_bytes()))
    return dataclasses.replace(stand_in, fun_name=path.name, mlir_module_serialized=module).call


def _portable(serialized: bytes) -> bytes:
    text = xla_client._xla.mlir.xla_computation_to_mlir_module(xla_client.XlaComputation(serialized))
    with mlir.make_ir_context(), ir.Location.unknown():
        module = ir.Module.parse(text)
        main = next(one for one in module.body.operations if ir.StringAttr(one.attributes["sym_name"]).value == "main")
        _flatten(main)
        main.attributes["sym_visibility"] = ir.StringAttr.get("public")
        for name in ATTRIBUTES:
            if f"mhlo.{name}" in module.operation.attributes:
                del module.operation.attributes[f"mhlo.{name}"]
        module.operation.verify()
        version = hlo.get_version_from_compatibility_requirement(hlo.StablehloCompatibilityRequirement.WEEK_4)
        return _jax.mlir.serialize_portable_artifact(module, version, xla_bridge.get_backend().serialize_with_sdy)


def _flatten(main: Any) -> None:
    """Let `main` return its results one by one: HLO returns one tuple, which JAX does not take."""
    block = main.regions[0].blocks[0]
    returned = list(block.operations)[-1]
    values = list(returned.operands)
    if len(values) == 1 and "tuple" in str(values[0].type):
        packed = values[0].owner
        values = list(packed.operands)
        with ir.InsertionPoint(returned):
            func.ReturnOp(values)
        returned.operation.erase()
        packed.erase()
    types = [argument.type for argument in block.arguments], [value.type for value in values]
    main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(*types))
    for name in ("arg_attrs", "res_attrs"):
        if name in main.attributes:
            del main.attributes[name]
