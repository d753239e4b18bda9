"""Small mistakes in Python modules, one at a time: a turned comparison, a number one off, a step left out."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_SILENT = ("_log.",)
"""Calls whose absence nobody but a reader of logs would notice."""


@dataclass(frozen=True, slots=True)
class PythonMutation:
    """One mistake: the function, the right code and the wrong one, and the module's whole wrong text."""

    place: str
    right: str
    wrong: str
    text: str

    @property
    def name(self) -> str:
        """A name that stays while other lines change."""
        return f"{self.place}: {self.right} -> {self.wrong or '(left out)'}"


def list_python_mutations(text: str) -> list[PythonMutation]:
    """Every mistake in a module, in order; each name once. Texts, annotations and log lines stay as they are."""
    tree = ast.parse(text)
    found = {one.name: one for one in _walk(tree, tree, "module")}
    return list(found.values())


def _walk(tree: ast.Module, node: ast.AST, place: str) -> Iterator[PythonMutation]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        place = node.name if place == "module" else f"{place}.{node.name}"
    if isinstance(node, ast.Expr) and ast.unparse(node).startswith(_SILENT):
        return
    for field, value in ast.iter_fields(node):
        # What is annotated is checked by the type checker, and decorators are the framework's.
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST):
                continue
            for wrong in _list_wrong(child):
                yield _replace(tree, node, field, index if isinstance(value, list) else None, wrong, place)
            yield from _walk(tree, child, place)


def _replace(
    tree: ast.Module, parent: ast.AST, field: str, index: int | None, wrong: ast.AST, place: str
) -> PythonMutation:
    value = getattr(parent, field)
    right = value if index is None else value[index]
    if index is None:
        setattr(parent, field, wrong)
    else:
        value[index] = wrong
    text = ast.unparse(ast.fix_missing_locations(tree))
    if index is None:
        setattr(parent, field, right)
    else:
        value[index] = right
    shown = "" if isinstance(wrong, ast.Pass) else ast.unparse(wrong).split("\n")[0]
    return PythonMutation(place, ast.unparse(right).split("\n")[0], shown, text)


def _list_wrong(node: ast.AST) -> Iterator[ast.AST]:
    """The wrong forms of one node."""
    yield from _list_conditions(node)
    yield from _list_values(node)
    if isinstance(node, ast.stmt):
        yield from _list_steps(node)


def _list_conditions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            for index, one in enumerate(ops):
                for other in _COMPARISONS.get(type(one), ()):
                    yield _change(node, ops=[*ops[:index], other(), *ops[index + 1 :]])
        case ast.BoolOp(op=operator, values=values):
            yield _change(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
            for index in range(len(values)):
                rest = [*values[:index], *values[index + 1 :]]
                yield rest[0] if len(rest) == 1 else _change(node, values=rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=other):
            yield from (body, other)
        case _:
            pass


def _list_values(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            yield _change(node, op=_OPERATORS[type(operator)]())
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Call(func=ast.Name(id="min" | "max" as name)):
            yield _change(node, func=ast.Name("max" if name == "min" else "min", ast.Load()))
        case _:
            pass


def _list_steps(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.Expr(value=ast.Constant()):
            # A docstring.
            pass
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr() | ast.Continue() | ast.Break() | ast.AugAssign() if not _is_silent(node):
            yield ast.Pass()
        case _:
            pass


def _is_silent(node: ast.AST) -> bool:
    return ast.unparse(node).startswith(_SILENT)


def _change(node: ast.AST, **fields: object) -> ast.AST:
    made = copy.copy(node)
    for name, value in fields.items():
        setattr(made, name, value)
    return made
