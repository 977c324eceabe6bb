"""Triton's interpreter, for tests: without what it does again and again, which is more than half of its time."""

import functools
import importlib.util
import os


class Kept:
    """In place of what would undo a patch."""

    @staticmethod
    def restore() -> None:
        pass


def speed_up() -> None:
    """``triton.language`` is patched anew for each call of a jit function, helpers too: here it stays patched.

    The numpy dtype of a Triton dtype is looked up in a table that each look-up makes: here it is kept.
    """
    if os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None:
        return
    import triton.language as tl
    from triton.runtime import interpreter

    patch, patched = interpreter._patch_lang, set()

    @functools.wraps(patch)
    def once(fn):
        names = frozenset(lang.__name__ for lang in fn.__globals__.values() if lang is tl or lang is tl.core)
        if names not in patched:
            patched.add(names)
            patch(fn)
        return Kept

    dtype_of, dtypes = interpreter._get_np_dtype, {}

    def known(t):
        if t.scalar.name not in dtypes:
            dtypes[t.scalar.name] = dtype_of(t.scalar)
        return dtypes[t.scalar.name]

    interpreter._patch_lang, interpreter._get_np_dtype = once, known
