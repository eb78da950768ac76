"""Short programs, each of which an action must run as CPython does: the same prints, or the same kind of error."""

from __future__ import annotations

import re

_CORPUS = r"""
### return_inside_try
def f():
    for n in range(5):
        try:
            if n == 2: return n
        finally: print('leave', n)
print(f())
### return_inside_except
def f(x):
    try: return 1 / x
    except ZeroDivisionError: return 'none'
    finally: print('done')
print(f(0), f(2))
### return_in_finally_wins
def f():
    try: return 1
    finally: return 2
print(f())
### break_inside_try
for n in range(5):
    try:
        if n == 2: break
        print(n)
    finally: print('finally', n)
print(n)
### continue_inside_try
for n in range(4):
    try:
        if n % 2: continue
        print(n)
    except ValueError: pass
    else: print('else', n)
### break_inside_with
import contextlib
@contextlib.contextmanager
def here():
    print('in')
    try: yield 5
    finally: print('out')
while True:
    with here() as x:
        print(x)
        break
### for_else
for n in range(3):
    if n == 7: break
else: print('no break')
for n in range(3):
    if n == 1: break
else: print('never')
print(n)
### while_else
n = 0
while n < 2: n += 1
else: print('else', n)
### try_else_finally
try: x = 1
except ValueError: print('except')
else: print('else')
finally: print('finally')
### starred_assignment
first, *rest = [1, 2, 3]
*head, last = 'abc'
a, (b, *c), d = 1, (2, 3, 4), 5
print(first, rest, head, last, a, b, c, d)
### starred_calls
def f(*args, **kw): return args, sorted(kw.items())
print(f(1, *[2, 3], *(4,), x=5, **{'y': 6}))
### keyword_only
def f(a, /, b, *, c=3, **rest): return a, b, c, rest
print(f(1, 2), f(1, b=2, c=4, d=5))
try: f(a=1, b=2)
except TypeError as error: print(error)
### mutable_default
def f(x, seen=[]):
    seen.append(x)
    return seen
print(f(1), f(2), f(3, []))
### default_evaluated_once
n = 1
def f(x=n): return x
n = 2
print(f())
### lambda_default
print([g() for g in [lambda i=i: i for i in range(4)]])
### lambda_closure
print([g() for g in [lambda: i for i in range(4)]])
### print_sep_end
print(1, 2, 3, sep='-', end='!\n')
print('a', end='')
print('b')
print(*range(3), sep='\n')
print()
### print_to_a_file
import io
stream = io.StringIO()
print('x', 'y', sep=',', file=stream)
print(repr(stream.getvalue()))
### nested_functions
def outer():
    x = 1
    def inner():
        nonlocal x
        x += 1
        return x
    return inner(), inner(), x
print(outer())
### global_statement
x = 1
def f():
    global x, y
    x, y = 2, 3
f()
print(x, y)
### unbound_local
x = 1
def f():
    print(x)
    x = 2
f()
### closure_cells
def counter():
    n = 0
    def up(by=1):
        nonlocal n
        n += by
        return n
    return up
a, b = counter(), counter()
print(a(), a(5), b())
### comprehension_scope
x = 'kept'
print([x for x in range(3)], x)
print({x: y for x, y in zip('ab', [1, 2])}, {x % 2 for x in range(5)})
### comprehension_in_class
class A:
    n = 3
    squares = [i * i for i in range(n)]
print(A.squares)
### class_scope_is_no_closure
class A:
    n = 3
    def f(self): return n
try: A().f()
except NameError as error: print(error)
### walrus
if (n := len('abc')) > 2: print(n)
print([y := 5, y ** 2], y)
print([last := x for x in range(3)], last)
### generator
def gen():
    received = yield 1
    print('got', received)
    yield 2
    return 3
g = gen()
print(next(g), g.send('x'))
try: next(g)
except StopIteration as stop: print(stop.value)
### yield_from
def inner():
    yield 1
    return 'result'
def outer():
    found = yield from inner()
    yield found
print(list(outer()))
### generator_close
def gen():
    try:
        while True: yield 1
    finally: print('closed')
g = gen()
next(g)
g.close()
### generator_throw
def gen():
    try: yield 1
    except ValueError as error: yield str(error)
g = gen()
next(g)
print(g.throw(ValueError('thrown')))
### generator_expression_is_lazy
g = (print(n) or n for n in range(3))
print('made')
print(next(g))
### decorators
def twice(f):
    def run(*args): return f(f(*args))
    return run
@twice
@twice
def inc(x): return x + 1
print(inc(0))
### decorator_with_arguments
import functools
def add(n):
    def wrap(f):
        @functools.wraps(f)
        def run(x): return f(x) + n
        return run
    return wrap
@add(10)
def double(x):
    "doc"
    return 2 * x
print(double(1), double.__name__, double.__doc__)
### match_values
def f(x):
    match x:
        case 0: return 'zero'
        case 1 | 2: return 'few'
        case int(n) if n > 100: return f'many {n}'
        case str() as s: return s.upper()
        case [a, b]: return a + b
        case [a, *rest]: return rest
        case {'k': v, **others}: return v, others
        case None: return 'none'
        case _: return 'other'
print([f(x) for x in (0, 2, 500, 'abc', [1, 2], [1, 2, 3], {'k': 1, 'z': 2}, None, 3.5)])
### match_classes
from dataclasses import dataclass
@dataclass
class P:
    x: int
    y: int
match P(1, 2):
    case P(x=0): print('no')
    case P(1, y): print('y', y)
### f_strings
x, width = 3.14159, 8
print(f'{x:.2f} {x!r:>{width}} {x=} {x:>+10.3e} {"a" "b"} {{}} {[n for n in range(2)]}')
### f_string_nested_format
print(f"{'left':<8}|{'right':>8}|{'mid':^9}|{12345678:,}|{255:#x}|{0.5:%}")
### percent_and_format
print('%s %5.1f %-4d| %r' % ('a', 2.25, 7, 'b'), '{0} {name!r} {1:04d}'.format('x', 5, name='n'))
### chained_comparison
print(1 < 2 < 3 > 2, 1 < 3 < 2, 1 == 1.0 != 2)
### boolean_values
print(0 or 'x', 1 and 'y', not [], '' or [] or None, 1 if [] else 2)
### slices
x = list(range(10))
print(x[::-2], x[2:8:3], x[-3:], x[:])
x[2:5] = ['a']
del x[::2]
print(x)
### slice_objects
class A:
    def __getitem__(self, key): return key
print(A()[1:2, ..., ::3], A()[1,])
### augmented_assignment
x = y = [1]
x += [2]
print(y, x is y)
x = x + [3]
print(y)
n = 7
n //= 2; n **= 3; n %= 10; n <<= 2; n |= 1; n ^= 3
print(n)
### matrix_multiplication_operator
class M:
    def __matmul__(self, other): return 'mm'
    def __rmatmul__(self, other): return 'rmm'
    def __imatmul__(self, other): return 'imm'
m = M()
print(m @ 1, 1 @ m)
m @= 1
print(m)
### classes_and_super
class A:
    def __init__(self, x): self.x = x
    def __repr__(self): return f'{type(self).__name__}({self.x})'
class B(A):
    def __init__(self, x, y):
        super().__init__(x)
        self.y = y
    def __eq__(self, other): return self.y == other.y
print(A(1), B(1, 2), B(1, 2) == B(3, 2), B.__mro__[1].__name__)
### properties
class A:
    def __init__(self): self._x = 1
    @property
    def x(self): return self._x
    @x.setter
    def x(self, value): self._x = value * 2
a = A()
a.x = 5
print(a.x)
try: A.x.fset(a, 'b'); print(a.x)
except Exception as error: print(error)
### class_and_static_methods
class A:
    made = 0
    @classmethod
    def make(cls): cls.made += 1; return cls()
    @staticmethod
    def add(a, b): return a + b
A.make(); A.make()
print(A.made, A.add(1, 2), A().add(3, 4))
### multiple_inheritance
class A:
    def f(self): return ['A']
class B(A):
    def f(self): return ['B'] + super().f()
class C(A):
    def f(self): return ['C'] + super().f()
class D(B, C):
    def f(self): return ['D'] + super().f()
print(D().f(), [c.__name__ for c in D.__mro__])
### metaclass
class Meta(type):
    def __new__(cls, name, bases, body, **kw): return super().__new__(cls, name, bases, body | {'tag': kw.get('tag')})
    def __init__(cls, *a, **kw): pass
class A(metaclass=Meta, tag='t'): pass
print(A.tag, type(A).__name__)
### init_subclass
class A:
    known = []
    def __init_subclass__(cls, **kw): A.known.append((cls.__name__, kw))
class B(A, k=1): pass
print(A.known)
### slots
class A:
    __slots__ = ('x',)
a = A()
a.x = 1
try: a.y = 2
except AttributeError as error: print('no y')
print(a.x)
### descriptors
class D:
    def __set_name__(self, owner, name): self.name = name
    def __get__(self, obj, kind=None): return f'{self.name} of {kind.__name__}'
class A: field = D()
print(A().field, A.field)
### getattr_hooks
class A:
    def __getattr__(self, name): return name * 2
    def __setattr__(self, name, value): object.__setattr__(self, name, value + 1)
a = A()
a.x = 1
print(a.x, a.yz)
### iteration_protocol
class A:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        self.n -= 1
        if self.n < 0: raise StopIteration
        return self.n
print(list(A(3)), sum(A(5)), 2 in A(4))
### getitem_iteration
class A:
    def __getitem__(self, n):
        if n > 3: raise IndexError
        return n * n
print(list(A()), 9 in A())
### container_protocol
class Bag(dict):
    def __missing__(self, key): return key + '?'
    def __contains__(self, key): return True
b = Bag(a=1)
print(b['a'], b['b'], 'zzz' in b, len(b), b.get('q'))
### callable_and_bool
class A:
    def __call__(self, *a): return a
    def __bool__(self): return False
    def __len__(self): return 9
print(A()(1, 2), bool(A()), len(A()))
### operators_reflected
class N:
    def __init__(self, v): self.v = v
    def __radd__(self, other): return N(other + self.v)
    def __lt__(self, other): return self.v < other.v
    def __neg__(self): return N(-self.v)
    def __hash__(self): return 1
print((5 + N(2)).v, sum([N(1)], start=3).v, min([N(3), N(2)]).v, (-N(4)).v)
### context_managers
class C:
    def __init__(self, n): self.n = n
    def __enter__(self): print('enter', self.n); return self.n
    def __exit__(self, kind, error, trace): print('exit', self.n, kind and kind.__name__); return self.n == 1
with C(1) as a, C(2) as b:
    print(a + b)
    raise ValueError
print('after')
### exception_chain
try:
    try: {}['k']
    except KeyError as error: raise ValueError('outer') from error
except ValueError as error: print(repr(error), repr(error.__cause__), error.__suppress_context__)
### exception_name_is_deleted
try: 1 / 0
except ZeroDivisionError as error: pass
try: error
except NameError: print('gone')
### exception_groups
try: raise ExceptionGroup('g', [ValueError(1), TypeError(2), ValueError(3)])
except* ValueError as group: print([str(e) for e in group.exceptions])
except* TypeError as group: print('t', len(group.exceptions))
### exception_order
class MyError(ValueError):
    def __init__(self, code): super().__init__(f'code {code}'); self.code = code
try: raise MyError(7)
except (KeyError, ValueError) as error: print(error, error.code)
except Exception: print('never')
### reraise
def f():
    try: 1 / 0
    except ZeroDivisionError:
        print('seen')
        raise
try: f()
except ArithmeticError as error: print(type(error).__name__)
### finally_order
def f():
    print('a')
    try:
        try: raise KeyError
        finally: print('b')
    except KeyError: print('c')
    finally: print('d')
    return 'e'
print(f())
### uncaught_error
print('before')
x = [1, 2][5]
print('never')
### uncaught_own_error
class Odd(Exception): pass
print(1)
raise Odd('words')
### assertion
try: assert 1 == 2, 'not equal'
except AssertionError as error: print(error)
### recursion
def fact(n): return 1 if n < 2 else n * fact(n - 1)
print(fact(30))
def depth(n): return n if n == 0 else depth(n - 1)
print(depth(900))
try: depth(10**5)
except RecursionError: print('too deep')
### mutual_recursion
def even(n): return True if n == 0 else odd(n - 1)
def odd(n): return False if n == 0 else even(n - 1)
print(even(10), odd(7))
### async_functions
import asyncio
async def work(n):
    await asyncio.sleep(0.001 * (3 - n))
    return n
async def main():
    print(await asyncio.gather(*(work(n) for n in range(3))))
    try: await asyncio.wait_for(asyncio.sleep(5), 0.01)
    except asyncio.TimeoutError: print('late')
asyncio.run(main())
### async_generators
import asyncio
async def gen():
    for n in range(3): yield n
class C:
    async def __aenter__(self): return 'in'
    async def __aexit__(self, *a): print('out')
async def main():
    async with C() as c: print(c, [n async for n in gen() if n])
asyncio.run(main())
### threads
import threading
found = []
threads = [threading.Thread(target=lambda n=n: found.append(n * n)) for n in range(5)]
for t in threads: t.start()
for t in threads: t.join(timeout=5)
print(sorted(found))
### thread_pool
from concurrent.futures import ThreadPoolExecutor, as_completed
with ThreadPoolExecutor(3) as pool:
    print(list(pool.map(lambda x: x * 2, range(4))))
    print(sorted(f.result(5) for f in as_completed([pool.submit(abs, -1)], 5)))
### queue_timeouts
import queue
q = queue.Queue()
try: q.get(timeout=0.01)
except queue.Empty: print('empty')
q.put(1)
print(q.get(timeout=1))
### dataclasses
from dataclasses import dataclass, field, replace, asdict
@dataclass(order=True, frozen=True)
class P:
    x: int
    tags: list = field(default_factory=list, compare=False)
p = P(1)
print(p, replace(p, x=2) > p, asdict(p))
try: p.x = 3
except Exception as error: print(type(error).__name__)
### dataclass_of_postponed_annotations
from __future__ import annotations
from dataclasses import dataclass, fields
@dataclass
class Node:
    next: Node | None = None
print([f.type for f in fields(Node)], Node(Node()))
### enums
import enum
class Color(enum.Enum):
    RED = 1
    BLUE = enum.auto()
print(Color.RED, Color(2).name, list(Color), Color['RED'] is Color.RED)
### named_tuples
from collections import namedtuple
from typing import NamedTuple
P = namedtuple('P', 'x y', defaults=[5])
class Q(NamedTuple):
    a: int
    b: str = 'z'
print(P(1), P(1)._replace(y=2), *Q(1), Q(1)._asdict())
### typing_and_annotations
from typing import Generic, TypeVar, Protocol, get_type_hints
T = TypeVar('T')
class Box(Generic[T]):
    item: 'T'
    def __init__(self, item: T) -> None: self.item = item
def f(a: int, b: 'str' = 'x') -> list[int]: return [a]
print(get_type_hints(f), Box[int](3).item, f.__annotations__['a'])
### module_annotations
x: int = 3
y: str
print(__annotations__, x)
### main_guard
if __name__ == '__main__': print('main')
print(__name__)
### pickle_of_own_classes
import pickle, copy
class A:
    def __init__(self): self.x = [1]
a = pickle.loads(pickle.dumps(A()))
b = copy.deepcopy(a)
b.x.append(2)
print(a.x, b.x, type(a) is A)
### collections_module
from collections import Counter, OrderedDict, defaultdict, deque, ChainMap
d = defaultdict(list)
for word in 'a bb a'.split(): d[word].append(len(word))
print(Counter('hello').most_common(2), dict(d), deque([1, 2, 3], 2), ChainMap({'a': 1}, {'b': 2})['b'])
### itertools_module
import itertools as it
print(list(it.accumulate([1, 2, 3])), list(it.product('ab', repeat=2))[:3])
print([(k, len(list(g))) for k, g in it.groupby('aab')])
print(list(it.islice(it.count(5, 2), 3)), list(it.zip_longest([1], [2, 3])), list(it.pairwise('abc')))
### functools_module
import functools
@functools.lru_cache(None)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
@functools.singledispatch
def kind(x): return 'any'
@kind.register
def _(x: int): return 'int'
print(fib(50), fib.cache_info().hits > 10, functools.reduce(lambda a, b: a * b, [1, 2, 3, 4]))
print(functools.partial(int, base=2)('101'), kind(1), kind('x'))
### sorting
words = ['banana', 'Apple', 'cherry']
print(sorted(words, key=str.lower, reverse=True), sorted([(1, 'b'), (1, 'a'), (0, 'z')], key=lambda p: p[0]))
words.sort(key=len)
print(words, max(words, key=lambda w: w[-1]), min([], default='none'))
### numbers_module
from decimal import Decimal, getcontext
from fractions import Fraction
import math, cmath
print(0.1 + 0.2, Decimal('0.1') + Decimal('0.2'), Fraction(1, 3) + 1, math.isclose(0.1 + 0.2, 0.3))
print(7 // -2, -7 % 3, divmod(-7, 2), 2 ** 100, round(2.5), cmath.sqrt(-1))
### integer_formats
print(int('ff', 16), bin(10), hex(255), oct(8), 1_000_000, 0b101, (255).to_bytes(2, 'big'))
print(int.from_bytes(b'\x01\x00', 'little'), (5).bit_length())
### bytes_and_text
b = bytes([65, 66]) + b'\xff'
print(b, b.hex(), b.decode('latin-1'), 'é'.encode(), bytearray(b'ab')[0])
print(memoryview(b'abc')[1:].tobytes(), ascii('é\n'))
### text_methods
s = '  Hello, World  '
print(s.strip().split(', '), s.title(), 'a,b,,c'.split(','), 'abc'.partition('b'), '-'.join('xyz'))
print('x'.center(5, '*'), 'abc'.translate(str.maketrans('ab', 'yz')), 'ß'.casefold(), 'a\tb'.expandtabs(4))
### regular_expressions
import re
print(re.sub(r'(\w+) (\w+)', r'\2 \1', 'hello world'), re.findall(r'(?P<y>\d{4})-(\d\d)', '2024-01 2023-12'))
print(re.split(r'[,;]', 'a,b;c'), re.match(r'a(?=b)', 'ab').end())
### json_module
import json
print(json.dumps({'b': [1, None, True], 'a': 'é'}, sort_keys=True, indent=1))
print(json.loads('{"x": 1e3}'), json.dumps({1: 2.0}))
### dates
from datetime import date, datetime, timedelta, timezone
d = datetime(2024, 2, 28, 23, 30, tzinfo=timezone.utc) + timedelta(hours=1)
print(d, d.isoformat(), d.strftime('%d %b %Y'), (date(2024, 12, 25) - date(2024, 1, 1)).days)
print(repr(date(2024, 1, 1)), datetime.strptime('2024-05-06', '%Y-%m-%d').weekday())
print(type(d) is datetime, isinstance(d, date), datetime.fromtimestamp(0, timezone.utc))
### seeded_random
import random
rng = random.Random(7)
print(rng.random(), rng.randint(1, 6), rng.sample(range(10), 3), rng.choices('ab', k=3))
random.seed(3)
print(random.random(), random.shuffle([1, 2]))
### files
import os, pathlib, tempfile
with open('made.txt', 'w') as f: print('line 1', 'line 2', sep='\n', file=f)
with open('made.txt') as f: print([line.rstrip() for line in f], f.tell())
p = pathlib.Path('made.txt')
print(p.read_text().upper(), p.suffix, p.exists(), os.path.getsize('made.txt'))
p.unlink()
try: open('made.txt')
except FileNotFoundError as error: print(error)
### csv_module
import csv, io
rows = list(csv.DictReader(io.StringIO('a,b\n1,"x,y"\n')))
print(rows)
out = io.StringIO()
csv.writer(out, lineterminator='\n').writerow(['q"', 2])
print(out.getvalue())
### sqlite
import sqlite3
db = sqlite3.connect(':memory:')
db.execute('create table t (a, b)')
db.executemany('insert into t values (?, ?)', [(1, 'x'), (2, 'y')])
print(db.execute('select sum(a), max(b) from t').fetchall())
### eval_and_exec
scope = {'x': 2}
exec('y = x * 21', scope)
print(scope['y'], eval('x + y', scope), eval('[n for n in range(3)]'))
print(type(compile('1 + 1', 'f', 'eval')).__name__)
### locals_and_globals
x = 1
def f(a, b=2): return sorted(locals().items())
print(f(1), globals()['x'], 'x' in vars())
### operators_on_sets_and_dicts
a, b = {1, 2, 3}, {2, 3, 4}
print(a & b, a | b, a - b, a ^ b, a < {1, 2, 3, 4}, {'x': 1} | {'y': 2}, {**{'a': 1}, 'a': 2})
d = dict(zip('abc', range(3)))
d.update(z=9)
print(d.pop('a'), d.setdefault('q', 5), list(d.items()), list(reversed(d)), frozenset([1]) in {frozenset([1])})
### identity_and_equality
a = [1]
b = a
print(a is b, a == [1], a is not [1], None is None, 1 == True, hash(1) == hash(1.0))
### deletion
x = {'a': 1, 'b': 2}
del x['a']
y = z = 5
del y
try: y
except NameError as error: print(error, x, z)
### multiple_targets
a = b, c = 1, 2
x, y = y, x = 3, 4
i, values = 0, [0, 0, 0]
i, values[i] = 2, 5
print(a, b, c, x, y, i, values)
### swap_and_unpack
a, b = 1, 2
a, b = b, a
(c, d), e = [3, 4], 5
[f, g] = 'xy'
for i, (k, v) in enumerate({'p': 1}.items()): print(i, k, v)
print(a, b, c, d, e, f, g)
### conditional_import
try: import no_such_module
except ImportError as error: print(error.name, type(error).__name__)
import os.path as p
from os import path, sep
print(p is path, sep)
### star_import
from math import *
print(floor(pi), sqrt(16))
### doc_strings
def f():
    '''The doc.'''
class A: 'doc of A'
print(f.__doc__, A.__doc__, f.__qualname__, A.f.__qualname__ if hasattr(A, 'f') else '')
### introspection
import inspect
def f(a, b: int = 2, *args, c, **kw) -> str: pass
print(inspect.signature(f), inspect.getsource(f).count('\n') if False else f.__code__.co_varnames, callable(f))
### iterators_run_out
z = zip([1, 2], [3, 4])
print(list(z), list(z), next(iter([]), 'default'))
r = reversed([1, 2])
print(list(r), list(r), list(map(lambda a, b: a + b, [1, 2], [10, 20, 30])), list(filter(None, [0, 1, ''])))
### any_all_enumerate
print(any(x > 2 for x in [1, 2, 3]), all([]), list(enumerate('ab', 1)), sum([[1], [2]], []), abs(-3), pow(3, 4, 5))
### strings_over_lines
text = '''a
  b\tc'''
print(text, r'\n', 'con' 'cat', "it's", "\x41\u0042\N{BULLET}")
### semicolons_and_continuations
x = 1; y = 2; print(x + \
    y)
if x: print('one'); print('two')
### ellipsis_pass_and_none
def f(): ...
class A: pass
print(f(), ..., A.__name__, print('x') is None)
### nested_data
data = {'a': [{'b': (1, 2)}, {'c': {3}}]}
data['a'][0]['b'] += (9,)
data['a'].append(data['a'][0])
print(data, data['a'][2] is data['a'][0])
### complex_comprehension
print([(x, y) for x in range(4) if x % 2 for y in range(x) if y != 1], [[i * j for j in range(3)] for i in range(2)])
print([*range(2), *'ab'], {**{'a': 1}}, (*[1],))
### short_circuit_order
def say(x): print('say', x); return x
say(0) or say(1) and say(2) or say(3)
print([say(1), say(2)][say(0)])
### evaluation_order
def f(n): print(n); return n
d = {f(1): f(2), **{f(3): f(4)}}
f(5) if f(0) else f(6)
print(d)
### integer_limits
print(2**63, -2**63 - 1, len(str(2**1000)), 10**20 // 3, int(1e18) + 1, float('inf') > 10**400 if False else 'x')
try: print(str(10**5000))
except ValueError: print('digits')
### float_formats
print(1e16, 1e-5, 123456789.123, 1.0, 5e-324, float('nan') == float('nan'), -0.0, 1 / 3, 1e22, 100000000000000000.0)
### global_counter_over_calls
calls = 0
def tick():
    global calls
    calls += 1
    return calls
print(tick(), tick(), calls)
### weak_references
import weakref, gc
class A: pass
a = A()
r = weakref.ref(a)
print(r() is a)
del a
print(r())
### del_method
class A:
    def __del__(self): print('deleted')
a = A()
a = None
print('after')
### bisect_heapq
import bisect, heapq
x = [1, 3, 5]
bisect.insort(x, 4)
h = [5, 1, 4]
heapq.heapify(h)
print(x, bisect.bisect(x, 3), heapq.heappop(h), heapq.nlargest(2, h))
### syntax_error
x = = 2
### return_outside_a_function
print('never')
return 5
### break_outside_a_loop
print('never')
break
### await_outside_a_function
await x
### name_error
print('before')
print(undefined_name)
### attribute_error
print(1)
'abc'.no_such()
### system_exit
import sys
print('last words')
sys.exit(3)
### stderr_is_no_stdout
import sys
print('out')
sys.stdout.write('written\n')
print('flushed', flush=True)
### buffered_bytes
import sys
sys.stdout.buffer.write(b'bytes\n')
sys.stdout.flush()
print('text')
### numpy_arrays
import numpy as np
x = np.arange(6).reshape(2, 3)
print(x.T @ x, x.mean(axis=0), x[x > 2], np.float64(0.1) + 0.2)
print(np.random.default_rng(5).integers(0, 10, 4), np.random.RandomState(1).rand())
"""

SNIPPETS: dict[str, str] = {
    name: code.strip("\n")
    for name, code in re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", _CORPUS, re.DOTALL | re.MULTILINE)
}
