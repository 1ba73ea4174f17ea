"""Extrinsic rewards as expressions over events, goals and ``step``: ``"cheese - 0.01*step"``."""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from astray.envs.errors import InputError, choose

_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def parse_reward(expression: str, names: Sequence[str]) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """A reward from an expression of numbers, names, ``+ - * /`` and parentheses; it is parsed, never run as Python.

    Args:
        expression: for example ``"cheese - 0.01*step"``.
        names: the names it may use.

    Returns:
        A function of one ``float64[B]`` per name that gives the reward, ``float64[B]``.

    Raises:
        InputError: the expression is no such expression, or uses an unknown name.
    """
    try:
        body = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError as error:
        raise InputError(f"extrinsic={expression!r} is not an expression: {error.msg}") from None

    def build(node: ast.expr) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
        match node:
            case ast.BinOp(left, op, right) if type(op) in _BINARY:
                apply, first, second = _BINARY[type(op)], build(left), build(right)
                return lambda values: apply(first(values), second(values))
            case ast.UnaryOp(op, operand) if type(op) in _UNARY:
                sign, inner = _UNARY[type(op)], build(operand)
                return lambda values: sign(inner(values))
            case ast.Constant(int() | float() as value) if not isinstance(value, bool):
                number = np.array(float(value))
                return lambda values: number
            case ast.Name(name):
                choose(f"a name in extrinsic={expression!r}:", name, names)
                return lambda values: values[name]
        raise InputError(f"extrinsic={expression!r}: {ast.unparse(node)!r} is not a number, a name, + - * / or ( )")

    return build(body)
