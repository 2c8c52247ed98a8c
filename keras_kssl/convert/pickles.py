"""Pickles read as data: nothing that a file names is imported or called.

`pickle.load` runs whatever a file asks for. Here the standard library only cuts the
file into instructions, and a small machine carries out those that build plain values.
Names in the file mean what the caller says that they mean; all others end the reading.
"""

import dataclasses
import pickletools
import struct
from collections.abc import Callable

from keras_kssl.convert.failures import Unreadable

# Checkpoints of large networks take some hundred thousand; an empty dictionary takes
# one, and sixty times its room in memory. A call counts as many as it has items: one
# list could be handed to calls for ever.
_MOST_INSTRUCTIONS = 3_000_000

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING"),
    )
)
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Hashing nested tuples, as keys of a dictionary, has no bound on its depth.
_KEYS = (str, bytes, int, float, type(None))
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    # Unknown escapes in texts of protocol 0, where warnings are errors.
    DeprecationWarning,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclasses.dataclass(frozen=True)
class Call:
    """The meaning of a name that a pickle may call, with plain values."""

    function: Callable


def _ordered_dict(items=()):
    return {_a(str, key): value for key, value in items}


# Pickled by dictionaries of many kinds.
ORDERED_DICT = {"collections.OrderedDict": Call(_ordered_dict)}


def load(stream, meaning_of, resolve=None):
    """The value that a pickle describes; the stream stands behind it afterwards.

    Args:
        stream: binary file at the start of a pickle of protocol 2 or later.
        meaning_of: function from a dotted name in the pickle to a value, or to a
            `Call`; None refuses the name. A value with a method `set_state` is given
            the state that the pickle attaches to it; that of dictionaries is dropped.
        resolve: function from a persistent id to a value. Default: there may be none.

    Raises:
        Unreadable: for anything else than plain values and known names.
    """
    try:
        return _run(stream, meaning_of, resolve)
    except _DAMAGE as error:
        raise Unreadable("Its pickle makes no sense.") from error


def _run(stream, meaning_of, resolve):
    stack, marks, memo = [], [], {}

    def above_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    count = 0
    for opcode, argument, _ in pickletools.genops(stream):
        count += 1
        if count > _MOST_INSTRUCTIONS:
            raise Unreadable(f"Its pickle has over {_MOST_INSTRUCTIONS} instructions.")
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name == "TUPLE":
            stack.append(tuple(above_mark()))
        elif name == "APPEND":
            item = stack.pop()
            _a(list, stack[-1]).append(item)
        elif name == "APPENDS":
            items = above_mark()
            _a(list, stack[-1]).extend(items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _a(dict, stack[-1])[_a(_KEYS, key)] = value
        elif name == "SETITEMS":
            items = above_mark()
            for key, value in zip(items[::2], items[1::2], strict=True):
                _a(dict, stack[-1])[_a(_KEYS, key)] = value
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_meaning(argument.replace(" ", "."), meaning_of))
        elif name == "STACK_GLOBAL":
            attribute, module = _a(str, stack.pop()), _a(str, stack.pop())
            stack.append(_meaning(f"{module}.{attribute}", meaning_of))
        elif name == "BINPERSID" and resolve is not None:
            stack.append(resolve(stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, call = _a(tuple, stack.pop()), stack.pop()
            count += len(arguments)
            count += sum(len(each) for each in arguments if isinstance(each, list))
            stack.append(_a(Call, call).function(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], dict):
                stack[-1].set_state(state)
        elif name == "STOP":
            return stack.pop()
        else:
            raise Unreadable(f"Its pickle has the instruction {name}.")
    raise Unreadable("Its pickle has no end.")


def _a(kinds, value):
    if not isinstance(value, kinds):
        raise TypeError(f"a {type(value).__name__} in the wrong place")
    return value


def _meaning(name, meaning_of):
    meaning = meaning_of(name)
    if meaning is None:
        raise Unreadable(
            f"It names {name!r:.200}, and only arrays, numbers, texts and their "
            "containers are read; nothing of it was run.",
            "Save the weights alone, as torch.save(model.state_dict(), path) does.",
        )
    return meaning
