"""Records a forward pass and its gradient as they run eagerly: shapes, casts, non-finite values.

TensorFlow calls a callback after each operation. The callback knows the operation, its inputs and
outputs, and from the Python stack the line of the user's code and the module that is being called.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from engine.runtime.user_code import calling_line

# Operations that multiply their first input by a kernel.
_PRODUCTS = (
    *("MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"),
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative"),
)
_FIRST = 8  # maximum number of products that are recorded
_READS = ("ReadVariableOp", "Identity")  # outputs of a variable's value, without a change


class ModuleCall(NamedTuple):
    """A call of a module in the forward pass."""

    name: str  # attribute path of the module, such as "module/blocks/2"
    kind: str  # its class
    outputs: str  # shapes and dtypes of its outputs


class LineResult(NamedTuple):
    """The last tensor that a line of the user's code computed."""

    place: str  # such as "my.py:12"
    code: str  # the line, without indentation
    output: str  # shape and dtype


class Product(NamedTuple):
    """The first input of an operation that multiplies it by a kernel."""

    operation: str  # type, such as "Conv2D"
    size: float  # root mean square of the input
    place: str  # line of the user's code; "" outside it
    module: str  # attribute path of the module that was being called; "" outside a module


class NonFinite(NamedTuple):
    """The operation whose finite inputs gave outputs that are not all finite."""

    operation: str  # type, such as "Log"
    values: str  # such as "3 of 128 values are nan"
    place: str  # line of the user's code; "" outside it
    module: str  # attribute path of the module that was being called; "" outside a module

    @property
    def text(self) -> str:
        """Description: place, module, operation and values, in one line."""
        where = f"{self.place}: " if self.place else ""
        module = f" in {self.module}" if self.module else ""
        return f"{where}{self.operation}{module}: {self.values}, and its inputs are finite"


class EagerTrace:
    """Record of the operations that run eagerly in a `with` block of `recorded`.

    Attributes:
      modules: calls of modules, in the order in which they started.
      lines: lines of the user's code that computed tensors, in the order of their first execution.
      casts: dtypes that variables were cast to, by `id` of the variable.
      products: the first eight matrix products and convolutions.
    """

    def __init__(self, modules: Mapping[str, Any], variables: Mapping[str, tf.Variable]) -> None:
        self.modules: list[ModuleCall] = []
        self.lines: dict[str, LineResult] = {}
        self.casts: dict[int, str] = {}
        self.products: list[Product] = []
        self._names = {id(module): name for name, module in modules.items()}
        self._classes = list({type(module): None for module in modules.values()})
        self._variables = {id(v.handle): id(v) for v in variables.values() if hasattr(v, "handle")}
        self._of_variable: dict[int, int] = {}  # id of a tensor -> id of the variable it is of
        self._origins: dict[int, NonFinite] = {}  # id of a tensor -> where its nan came from
        self._alive: list[Any] = []  # the tensors of both: a freed one would give its id to others
        self._stack: list[str] = []  # names of the modules that are being called
        self._calling = False

    def origin(self, *tensors: Any) -> NonFinite | None:
        """Returns where the first value that is not finite came from; None if all are finite.

        Args:
          *tensors: tensors of the recorded block.
        """
        return next((o for t in tensors if (o := self._origins.get(id(t)))), None)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Records the operations of a `with` block; `tf.function`s run eagerly in it."""
        eagerly = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        op_callbacks.add_op_callback(self._after_operation)
        try:
            with contextlib.ExitStack() as stack:
                for each in self._classes:
                    stack.enter_context(self._named_calls(each))
                yield
        finally:
            op_callbacks.remove_op_callback(self._after_operation)
            tf.config.run_functions_eagerly(eagerly)

    @contextlib.contextmanager
    def _named_calls(self, kind: Any) -> Iterator[None]:
        """Replaces `kind.__call__` in a `with` block by a function that records each call."""
        if not hasattr(kind, "__call__"):  # noqa: B004  (of its instances, not of the class)
            yield
            return
        call, own = kind.__call__, "__call__" in vars(kind)

        @functools.wraps(call)
        def recorded(module: Any, *arguments: Any, **named: Any) -> Any:
            name = self._names.get(id(module))
            if name is None or type(module) is not kind:
                return call(module, *arguments, **named)
            index = len(self.modules)
            self.modules.append(ModuleCall(name, kind.__name__, ""))
            self._stack.append(name)
            try:
                outputs = call(module, *arguments, **named)
            finally:
                self._stack.pop()
            self.modules[index] = self.modules[index]._replace(outputs=described_tensors(outputs))
            return outputs

        kind.__call__ = recorded
        try:
            yield
        finally:
            if own:
                kind.__call__ = call
            else:
                del kind.__call__

    def _after_operation(
        self,
        op_type: str,
        inputs: Any,
        attributes: Any,
        outputs: Any,
        op_name: str | None = None,
        graph: Any = None,
    ) -> None:
        """Records an operation; TensorFlow calls this after each one."""
        if self._calling or graph is not None:
            return
        self._calling = True
        try:
            self._record(op_type, inputs, outputs)
        finally:
            self._calling = False

    def _record(self, op_type: str, inputs: Any, outputs: Any) -> None:
        place = calling_line()
        if place:
            code = linecache.getline(place.path, place.line).strip()
            self.lines[place.text] = LineResult(place.text, code, described_tensors(list(outputs)))
        module, text = self._stack[-1] if self._stack else "", place.text if place else ""
        if op_type in _PRODUCTS and len(self.products) < _FIRST:
            values = np.asarray(inputs[0].numpy()).astype(np.float64)
            size = float(np.sqrt(np.mean(np.square(values))))
            self.products.append(Product(op_type, size, text, module))
        self._follow_variable(op_type, inputs, outputs)
        origin = self.origin(*inputs)
        for output in outputs:
            if described := not_finite(output):
                self._alive.append(output)
                self._origins[id(output)] = origin or NonFinite(op_type, described, text, module)

    def _follow_variable(self, op_type: str, inputs: Any, outputs: Any) -> None:
        """Notes the tensors that are a variable's value, and casts of such tensors."""
        for tensor in inputs[:1]:
            variable = self._variables.get(id(tensor), self._of_variable.get(id(tensor)))
            if variable is None:
                return
            if op_type in _READS:
                self._alive.append(outputs[0])
                self._of_variable[id(outputs[0])] = variable
            elif op_type == "Cast":
                self.casts[variable] = outputs[0].dtype.name


def described_tensors(nest: Any) -> str:
    """Formats the shapes and dtypes of a nest of tensors, such as "128x10 float32"."""
    texts = []
    for each in tf.nest.flatten(nest):
        if hasattr(each, "shape") and hasattr(each, "dtype"):
            shape = "x".join("?" if side is None else str(side) for side in each.shape)
            texts.append(f"{shape or 'scalar'} {tf.as_dtype(each.dtype).name}")
    return ", ".join(texts)


def not_finite(tensor: Any) -> str:
    """Describes the values of a tensor that are not finite, as "3 of 128 values are nan".

    Returns "" if all are finite or the tensor is not floating-point.
    """
    if not getattr(tensor, "dtype", tf.int32).is_floating:
        return ""
    values = np.asarray(tensor.numpy())
    finite = np.isfinite(values)
    if finite.all():
        return ""
    nan = np.isnan(values)
    bad = values.size - int(np.count_nonzero(finite))
    kinds = [n for n, found in (("nan", nan.any()), ("infinite", (~finite & ~nan).any())) if found]
    return f"{bad:,} of {values.size:,} values are {' or '.join(kinds)}"
