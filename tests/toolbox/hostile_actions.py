"""Code actions that try to get out, to stay, to starve the host or to cheat; shared by the tests of the sandbox.

Only the operating system holds them. An action that gets what it must not get prints LEAK or shows the secret.
`{canary}` is a file of the host that holds the secret, `{pid}` the host process, `{port}` a port it listens on,
`{abstract}` its abstract socket. What lies behind the tools, and their settings, hold the secret too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from regrpo_jax.records.types import Status

OK, ERROR, TIMEOUT, INVALID = Status.OK, Status.TOOL_ERROR, Status.TIMEOUT, Status.INVALID_ACTION


@dataclass(frozen=True)
class Hostile:
    """statuses: those that are right; a kill is one of these, and never an infra error."""

    name: str
    code: str
    statuses: tuple[Status, ...]


_CORPUS = r"""
### infinite_loop timeout
while True: pass
### infinite_loop_that_swallows_everything timeout
while True:
    try:
        while True: pass
    except BaseException: pass
### huge_power timeout tool_error
10**10**8
### huge_factorial timeout
import math
math.factorial(10**8)
### sleep_for_ever timeout
import time
time.sleep(10**6)
### regular_expression_catastrophe timeout
import re
re.match(r'(a+)+$', 'a' * 64 + 'b')
### endless_generator timeout
sum(1 for _ in iter(int, 1))
### fork_bomb timeout tool_error
import os
while True:
    try: os.fork()
    except OSError: pass
### fork_bomb_that_leaves ok tool_error
import os
for _ in range(40):
    try:
        if os.fork() == 0:
            os.setsid()
            while True:
                try: os.fork()
                except OSError: pass
    except OSError: break
### zombie_children ok
import os
made = 0
for _ in range(1000):
    try:
        if os.fork() == 0: os._exit(0)
        made += 1
    except OSError: break
print('LEAK' if made > 100 else 'contained')
### daemon_that_stays ok
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(1)
    os._exit(0)
os.wait()
### daemon_that_ignores_signals ok
import os, signal, time
if os.fork() == 0:
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True: time.sleep(1)
### thread_bomb ok tool_error
import threading, time
count = 0
try:
    for _ in range(10**5):
        threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()
        count += 1
except RuntimeError: pass
print('LEAK' if count > 100 else 'contained')
### threads_that_compute_after_the_action ok
import threading
def spin():
    while True: pass
for _ in range(4): threading.Thread(target=spin, daemon=True).start()
### ten_gigabytes_in_one_piece tool_error
x = bytearray(10 * 2**30)
### ten_gigabytes_in_pieces tool_error timeout
x = []
while True: x.append(bytearray(2**24))
### memory_over_many_processes tool_error timeout
import os, time
for _ in range(8):
    if os.fork() == 0: break
x = []
while True:
    try: x.append(b'x' * 2**22)
    except MemoryError: time.sleep(1)
### memory_behind_a_main_thread_that_has_ended tool_error timeout ok
import ctypes, os, threading, time
libc = ctypes.CDLL(None)
def hold():
    kept = []
    while True:
        try: kept.append(b'x' * 2**22)
        except MemoryError: time.sleep(1)
for _ in range(4):
    if os.fork() == 0:
        threading.Thread(target=hold).start()
        libc.syscall(60 if os.uname().machine == 'x86_64' else 93, 0)
time.sleep(2.5)
print('LEAK')
### memory_in_sockets tool_error
import socket, time
kept = []
while True:
    try:
        ends = socket.socketpair()
        kept.append(ends)
        for end in ends:
            try: end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**30)
            except OSError: pass
            else: print('LEAK')
            end.setblocking(False)
            while True: end.send(b'x' * 2**16)
    except BlockingIOError: pass
    except OSError: break
time.sleep(2)
print('LEAK')
### memory_in_sockets_of_the_internet tool_error
import socket
socket.socket(socket.AF_INET).listen()
print('LEAK')
### events_of_the_whole_machine tool_error
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
context = ctypes.c_ulong(0)
if libc.syscall(206 if os.uname().machine == 'x86_64' else 0, 60000, ctypes.byref(context)) == 0: print('LEAK')
raise OSError(ctypes.get_errno(), 'io_setup')
### a_main_thread_that_ends ok tool_error timeout
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)
### shared_anonymous_memory tool_error timeout ok
import mmap, os
kept = []
for _ in range(8):
    if os.fork() == 0: break
try:
    while True:
        part = mmap.mmap(-1, 2**24)
        part.write(b'x' * 2**24)
        kept.append(part)
except (OSError, MemoryError): pass
while True: pass
### memory_files tool_error ok
import os
kept = []
while len(kept) < 200:
    fd = os.memfd_create('x')
    os.write(fd, b'x' * 2**23)
    kept.append(fd)
print('LEAK')
### print_a_gigabyte_at_once ok tool_error timeout
print('x' * 2**30)
### print_a_gigabyte_in_lines ok timeout
for _ in range(2**14): print('x' * 2**16)
### print_garbage ok tool_error
import sys
print('\x00\x1b[2J\ud800\udfff\U0010ffff' * 1000)
sys.stdout.buffer.write(bytes(range(256)) * 100)
### answer_of_a_gigabyte ok tool_error timeout
final_answer(['x' * 10**6] * 100)
### answer_that_contains_itself ok tool_error
x = []
x.append(x)
final_answer(x)
### answer_with_a_hostile_text ok tool_error
class Evil:
    def __str__(self): raise SystemExit(3)
    __repr__ = __str__
final_answer({'a': Evil()})
### deep_nesting_in_the_answer ok tool_error
x = []
for _ in range(10**5): x = [x]
final_answer(x)
### deep_recursion tool_error
def f(n): return f(n + 1)
f(0)
### stack_overflow tool_error
import sys
sys.setrecursionlimit(10**9)
class A:
    def __repr__(self): return repr(self)
f = lambda n: max([n], key=lambda k: f(k + 1))
f(0)
### deeply_nested_code tool_error invalid_action ok
eval('(' * 90 + ')' * 90 + '-' * 50000 + '1')
### read_passwd tool_error
print('LEAK', open('/etc/passwd').read())
### read_shadow tool_error
print('LEAK', open('/etc/shadow').read())
### read_a_file_of_the_host tool_error
print(open('{canary}').read())
### read_through_parents tool_error
print(open('../' * 20 + '{canary}').read())
### read_through_a_link tool_error
import os
os.symlink('{canary}', 'link')
print(open('link').read())
### link_as_a_result ok
import os
os.symlink('/etc/passwd', 'a.png')
os.symlink('/proc/1/environ', 'a.txt')
os.symlink('/', 'everything')
### hard_link_to_a_file_of_the_host tool_error
import os
os.link('{canary}', 'link')
print(open('link').read())
### read_through_proc tool_error
import os
for pid in sorted(os.listdir('/proc')):
    if pid.isdigit() and pid != str(os.getpid()):
        for name in ('root{canary}', 'cwd/{canary}', 'environ', 'maps', 'mem'):
            try: print('LEAK', pid, name, open(f'/proc/{pid}/{name}', 'rb').read(10))
            except OSError: pass
open('/proc/{pid}/environ').read()
### memory_of_the_warm_process tool_error
open('/proc/1/mem', 'r+b').write(b'x')
### descriptors_of_the_warm_process tool_error
import os
print('LEAK', os.listdir('/proc/1/fd'))
### kernel_settings tool_error
open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')
### sysrq tool_error
open('/proc/sysrq-trigger', 'w').write('c')
### out_of_memory_score tool_error
open('/proc/1/oom_score_adj', 'w').write('1000')
### write_into_the_system tool_error
open('/usr/lib/evil.py', 'w').write('LEAK')
### write_into_the_package tool_error
import regrpo_jax
open(regrpo_jax.__file__, 'a').write('LEAK')
### write_outside tool_error
open('/evil', 'w').write('LEAK')
### write_over_the_file_of_the_host tool_error
open('{canary}', 'w').write('LEAK')
### raw_devices tool_error
import os
os.mknod('disk', 0o60666, os.makedev(8, 0))
print('LEAK')
### memory_device tool_error
print('LEAK', open('/dev/mem', 'rb').read(1))
### terminal tool_error
import fcntl, termios
fcntl.ioctl(open('/dev/tty'), termios.TIOCSTI, b'x')
print('LEAK')
### environment_with_secrets ok
import os
print(sorted(os.environ.items()))
### fill_the_disk_with_one_file tool_error
with open('big', 'wb') as file:
    while True: file.write(b'x' * 2**20)
### fill_the_disk_with_many_files tool_error
for n in range(10**6):
    with open(f'f{n}', 'wb') as file: file.write(b'x' * 2**22)
### fill_the_temporary_folders tool_error
for folder in ('/tmp', '/dev/shm'):
    try:
        for n in range(1000):
            with open(f'{folder}/f{n}', 'wb') as file: file.write(b'x' * 2**22)
        print('LEAK')
    except OSError as error: print(error)
raise ValueError('full')
### many_files_in_the_temporary_folders tool_error
import time
for n in range(10**5):
    for folder in ('/tmp', '/dev/shm'): open(f'{folder}/f{n}', 'w').close()
time.sleep(2)
### many_files_of_long_names tool_error
import time
for n in range(3900): open(f'{n:04}' + 'x' * 240, 'w').close()
time.sleep(2)
### many_empty_files tool_error
import time
for n in range(10**5): open(f'f{n}', 'w').close()
time.sleep(2)
### sparse_file tool_error
with open('sparse', 'wb') as file: file.truncate(2**40)
### folders_deep_down tool_error ok
import os
for _ in range(3000):
    os.mkdir('d')
    os.chdir('d')
### file_names_that_are_no_text ok
open(b'\xff\xfe.png', 'wb').write(b'x')
open('new\nline.png', 'w').write('x')
### pipes_among_the_files ok
import os
os.mkfifo('a.png')
os.mkfifo('a.txt')
### folder_without_rights ok
import os
os.mkdir('locked')
open('locked/file', 'w').write('x')
os.chmod('locked/file', 0)
os.chmod('locked', 0)
### delete_the_workspace tool_error ok
import os, shutil
shutil.rmtree(os.getcwd(), ignore_errors=True)
os.rmdir(os.getcwd())
### open_files_without_end tool_error
kept = []
while True: kept.append(open('/dev/null'))
### connect_to_the_internet tool_error
import socket
socket.create_connection(('1.1.1.1', 53), 2)
print('LEAK')
### connect_to_the_host tool_error
import socket
socket.create_connection(('127.0.0.1', {port}), 2)
print('LEAK')
### abstract_socket_of_the_host tool_error
import socket
socket.socket(socket.AF_UNIX).connect('\0{abstract}')
print('LEAK')
### look_up_a_name tool_error
import socket
print('LEAK', socket.gethostbyname('example.com'))
### download tool_error
import urllib.request
print('LEAK', urllib.request.urlopen('http://example.com', timeout=2).read())
### virtual_machine_socket tool_error
import socket
socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
print('LEAK')
### raw_socket tool_error
import socket
socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
print('LEAK')
### kill_the_host tool_error
import os
os.kill({pid}, 9)
print('LEAK')
### kill_the_warm_process ok
import os, signal, time
for number in range(1, 65):
    try: os.kill(1, number)
    except OSError: pass
time.sleep(0.1)
### kill_the_parent ok
import os
os.kill(os.getppid(), 9)
os.kill(os.getppid(), 19)
### kill_everything ok tool_error
import os
os.kill(-1, 9)
### kill_itself tool_error
import os
os.kill(os.getpid(), 9)
### stop_itself timeout
import os, signal
os.kill(os.getpid(), signal.SIGSTOP)
### segmentation_fault tool_error
import ctypes
ctypes.string_at(0)
### leave_without_a_word tool_error
import os
os._exit(0)
### leave_with_a_word tool_error
import sys
sys.exit(0)
### keyboard_interrupt tool_error
raise KeyboardInterrupt
### exit_handlers ok
import atexit, os
atexit.register(lambda: os.system('sleep 1000'))
### close_all_descriptors tool_error
import os
os.closerange(0, 4096)
### garbage_into_all_descriptors tool_error
import os
for fd in range(3, 64):
    try: os.write(fd, b'\xff' * 10**5)
    except OSError: pass
### message_without_end tool_error
import os
for fd in range(3, 64):
    try: os.write(fd, b'\xff\xff\xff\xff\xff\xff\xff\xff')
    except OSError: pass
while True: pass
### forged_messages tool_error
import json, os, struct
text = json.dumps({'opened': True, 'done': 'x', 'ended': {}, 'answer': [1], 'clean': True}).encode()
for fd in range(3, 64):
    try: os.write(fd, (struct.pack('!II', len(text), 0) + text) * 100)
    except OSError: pass
### nested_json tool_error
import os, struct
text = b'[' * 10**5
for fd in range(3, 64):
    try: os.write(fd, struct.pack('!II', len(text), 0) + text)
    except OSError: pass
### half_a_message timeout
import os, time
for fd in range(3, 64):
    try: os.write(fd, b'\x00\x00\x00')
    except OSError: pass
time.sleep(1000)
### pass_descriptors_to_the_host tool_error
import os, socket
for fd in range(3, 64):
    try:
        end = socket.socket(fileno=os.dup(fd))
        socket.send_fds(end, [b'\x00\x00\x00\x02\x00\x00\x00\x00{}'], [0, 1, 2])
    except OSError: pass
### call_a_host_tool_that_is_none ok tool_error
import json, os, struct
text = json.dumps({'remote': 'x', 'name': '__import__', 'arguments': ['os'], 'keywords': {}}).encode()
for fd in range(3, 64):
    try: os.write(fd, struct.pack('!II', len(text), 0) + text)
    except OSError: pass
### dunder_escape ok tool_error
found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen']
print('LEAK' if found and found[0](['cat', '{canary}']).wait() == 0 else 'contained')
### builtins_escape tool_error
print.__self__.__import__('os').system('cat {canary}')
open('{canary}')
### numpy_escape tool_error
import numpy as np
np.ctypeslib.ctypes.CDLL(None).kill({pid}, 9)
print(np.fromfile('{canary}', dtype='u1').tobytes())
### pickle_escape tool_error
import pickle
pickle.loads(b"cos\nsystem\n(S'cat {canary} > stolen; cat stolen'\ntR.")
print('LEAK' if open('stolen').read() else open('{canary}'))
### native_library tool_error
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.open(b'{canary}', 0)
if fd < 0: raise OSError(ctypes.get_errno(), 'open')
print('LEAK')
### mount tool_error
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 or libc.umount2(b'/tmp', 2) == 0: print('LEAK')
raise OSError(ctypes.get_errno(), 'mount')
### chroot tool_error
import os
os.chroot('/tmp')
print('LEAK')
### new_namespaces tool_error
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x8000000):
    if libc.unshare(flag) == 0: print('LEAK', hex(flag))
if libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) > 0: print('LEAK clone')
raise OSError(ctypes.get_errno(), 'unshare')
### trace_the_warm_process tool_error
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, 1, 0, 0) == 0: print('LEAK')
raise OSError(ctypes.get_errno(), 'ptrace')
### become_root tool_error
import os
os.setuid(0)
print('LEAK')
### become_another_user tool_error
import os
os.setuid(12345)
print('LEAK')
### setuid_program tool_error ok
import subprocess
print('LEAK' if b'uid=0' in subprocess.run(['su', '-c', 'id'], capture_output=True, timeout=2).stdout else 'contained')
### raise_the_limits tool_error
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (10**6, 10**6))
print('LEAK')
### limits_of_the_warm_process tool_error
import resource
resource.prlimit(1, resource.RLIMIT_NOFILE, (8, 8))
print('LEAK')
### priority_of_the_warm_process ok tool_error
import os
os.setpriority(os.PRIO_PROCESS, 1, 19)
os.sched_setaffinity(1, {0})
### system_v_memory tool_error
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.shmget(4711, 4096, 0o1666) >= 0: print('LEAK')
raise OSError(ctypes.get_errno(), 'shmget')
### keyring tool_error
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(248, b'user', b'name', b'data', 4, -4) > 0: print('LEAK')
raise OSError(ctypes.get_errno(), 'add_key')
### kernel_programs tool_error
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for call in (321, 425, 298):
    if libc.syscall(call, 0, 0, 0, 0, 0) >= 0: print('LEAK')
raise OSError(ctypes.get_errno(), 'bpf')
### change_the_tools ok tool_error
import builtins, sys
globals()['read_text'] = globals()['final_answer'] = lambda *a, **k: 'LEAK'
builtins.print = builtins.open = builtins.len = lambda *a, **k: 'LEAK'
sys.modules['json'].dumps = sys.modules['os'].listdir = lambda *a, **k: 'LEAK'
### change_the_sandbox ok tool_error
import sys
from regrpo_jax.sandbox import action_process, first_process, protocol
protocol.decode_header = first_process.FirstProcess.condition = first_process.empty_folder = lambda *a: 'LEAK'
### trace_functions ok timeout
import sys, threading
sys.settrace(lambda *a: None)
sys.setprofile(lambda *a: None)
### audit_hooks ok tool_error
import sys
def hook(name, arguments): raise RuntimeError('no')
sys.addaudithook(hook)
### signal_games ok timeout
import signal, os
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
### leave_a_note_for_the_next ok
import os
for folder in ('.', '/tmp', '/dev/shm'):
    open(f'{folder}/note', 'w').write('LEAK')
os.environ['NOTE'] = 'LEAK'
os.umask(0o777)
os.nice(5)
### wait_for_the_next_episode ok
import os, time
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        while True:
            for name in os.listdir('.'):
                try: open(name, 'w').write('LEAK')
                except OSError: pass
### read_another_workspace tool_error
import os
for folder in ('/workspace', '/tmp', '/dev/shm', '/var/tmp'):
    for path, _, names in os.walk(folder) if os.path.isdir(folder) else ():
        for name in names:
            read_only = os.statvfs(path).f_flag & os.ST_RDONLY  # Python or the project, where they lie below /tmp
            if name != 'notes.txt' and not read_only: print('LEAK', path, name)
open('/workspace/../../workspace/secret').read()
### import_time_bomb tool_error timeout
open('numpy.py', 'w').write('print("LEAK")')
open('sitecustomize.py', 'w').write('print("LEAK")')
import subprocess, sys
print(subprocess.run([sys.executable, '-c', 'import numpy'], capture_output=True, text=True).stdout)
raise ValueError('no')
### core_dump tool_error
import os, signal
os.kill(os.getpid(), signal.SIGABRT)
### cpu_over_many_processes timeout
import os
for _ in range(6):
    if os.fork() == 0: break
while True: pass
### unpickle_on_the_host ok tool_error
class Bomb:
    def __reduce__(self): return (print, ('LEAK',))
final_answer(Bomb())
### unpickle_among_the_tools tool_error
class Bomb:
    def __reduce__(self): return (print, ('LEAK',))
print(add(Bomb(), 1))
### kill_the_tools tool_error timeout
import os, time
for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
    if pid not in (1, os.getpid()): os.kill(pid, 9)
time.sleep(0.5)
print(add(1, 2), 'LEAK')
### kill_the_tools_and_say_nothing ok tool_error
import os
for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
    if pid not in (1, os.getpid()): os.kill(pid, 9)
### stop_the_tools timeout
import os, signal
for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
    if pid not in (1, os.getpid()): os.kill(pid, signal.SIGSTOP)
add(1, 2)
### stop_the_tools_at_the_end ok
import os, signal
for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
    if pid not in (1, os.getpid()): os.kill(pid, signal.SIGSTOP)
### slow_the_tools_down ok tool_error
import os
for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
    if pid not in (1, os.getpid()): os.setpriority(os.PRIO_PROCESS, pid, 19)
### limits_of_the_tools tool_error
import os, resource
for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
    if pid != os.getpid(): resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3))
print('LEAK')
### memory_of_the_tools tool_error
import os
for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
    if pid != os.getpid():
        for name in ('mem', 'maps', 'environ', 'auxv', 'syscall', 'pagemap', 'fd/3', 'cwd/..', 'exe'):
            try: print('LEAK', pid, name, open(f'/proc/{pid}/{name}', 'rb').read(10))
            except OSError: pass
        try: print('LEAK', os.listdir(f'/proc/{pid}/fd'))
        except OSError: pass
open('/proc/1/mem')
### memory_of_the_tools_by_system_call tool_error
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
    if pid != os.getpid():
        for call in (310, 311, 101, 438):
            if libc.syscall(call, pid, 0, 0, 0, 0, 0) > 0: print('LEAK', call)
raise OSError(ctypes.get_errno(), 'process_vm_readv')
### everything_that_python_knows ok
import gc, sys, types
seen, found = set(), []
def look(value, depth):
    if id(value) in seen or depth > 6: return
    seen.add(id(value))
    if isinstance(value, (str, bytes)):
        text = value if isinstance(value, str) else value.decode('latin-1')
        if text.startswith('secret') and len(text) == 22: found.append(text)
    elif isinstance(value, types.FrameType): look(dict(value.f_locals), depth + 1)
    else:
        for inner in gc.get_referents(value): look(inner, depth + 1)
for value in [*gc.get_objects(), *sys.modules.values()]: look(value, 0)
frame = sys._getframe()
while frame: look(frame, 0); frame = frame.f_back
print(found, len(seen) > 1000)
### every_byte_of_its_memory ok tool_error
import ctypes
found = []
for line in open('/proc/self/maps'):
    place, rights = line.split()[:2]
    start, end = (int(part, 16) for part in place.split('-'))
    if rights.startswith('rw') and end - start < 2**28:
        data = ctypes.string_at(start, end - start)
        position = data.find(b'secret')
        while position >= 0:
            found.append(data[position:position + 22])
            position = data.find(b'secret', position + 1)
print([item for item in found if item[6:].isalnum()])
### forged_calls tool_error
import json, os, struct
frames = [{'call': 1, 'name': 'add', 'asked': ''}, {'ended': 1, 'status': 'infra_error', 'result': '', 'failed': True},
          {'broken': 'closed'}, {'remote': 'ask_host', 'arguments': [1], 'keywords': {}}, {'opened': True}]
for frame in frames:
    text = json.dumps(frame).encode()
    for fd in range(3, 64):
        try: os.write(fd, struct.pack('!II', len(text), 0) + text)
        except OSError: pass
add(1, 2)
### a_call_that_never_was tool_error
import gc
for value in gc.get_objects():
    if type(value).__name__ == 'ToolClient': client = value
error = ValueError('mine')
client._failures = {10**9: (error, 'infra_error'), -1: (error, '')}
raise error
### a_call_of_another_action tool_error
import gc
for value in gc.get_objects():
    if type(value).__name__ == 'ToolClient': client = value
for number in range(100):
    error = ValueError('mine')
    client._failures = {number: (error, 'infra_error')}
raise error
### a_call_of_no_tool tool_error
import gc
for value in gc.get_objects():
    if type(value).__name__ == 'ToolClient': client = value
client.call('__import__', ('os',), {})
### arguments_that_are_no_values tool_error
import gc
for value in gc.get_objects():
    if type(value).__name__ == 'ToolClient': client = value
client._ask({'call': 'add', 'arguments': [['array', '|O', [1], 0, 8], ['served', 10**9]], 'keywords': {}}, b'x' * 8)
### an_object_that_was_never_served tool_error
import gc
for value in gc.get_objects():
    if type(value).__name__ == 'ToolClient': client = value
client.operate(0, '__class__', (), {})
### arguments_without_end tool_error
x = []
x.append(x)
add(x, 1)
### arguments_that_are_deep tool_error
x = 1
for _ in range(10**5): x = [x]
add(x, 1)
### arguments_that_are_large tool_error timeout
print(len(find(word='x' * 10**8)))
add([1.5] * 10**7, 1)
### arguments_of_a_strange_kind tool_error
import sys
class Word(str):
    def __reduce__(self): return (print, ('LEAK',))
    def encode(self, *a): raise SystemExit
print(find(Word('apple')))
add(lambda: 1, sys)
### tools_in_many_threads ok
import threading
found = []
def work(n): found.append(add(n, n) == 2 * n)
threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('contained' if found == [True] * 10 else 'LEAK')
### tools_in_a_child ok
import os
child = os.fork()
if child == 0:
    try: add(1, 2)
    except RuntimeError: os._exit(7)
    os._exit(0)
print('contained' if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7 else 'LEAK', add(1, 2))
### a_child_that_comes_to_the_end ok
import os
child = os.fork()
print(child > 0)
### a_child_that_keeps_the_tools_busy tool_error
import os, struct, time
if os.fork() == 0:
    text = b'{"call":"add","arguments":[1,2],"keywords":{},"request":1}'
    while True:
        for fd in range(3, 64):
            try: os.write(fd, struct.pack('!II', len(text), 0) + text)
            except OSError: pass
time.sleep(0.3)
while True: add(1, 2)
### tools_after_the_answer ok tool_error
try: final_answer(1)
except BaseException: pass
print(add(1, 2))
final_answer(2)
### close_the_line_to_the_tools tool_error timeout
import os
for fd in range(4, 64):
    try: os.close(fd)
    except OSError: pass
add(1, 2)
### an_alarm_during_a_call ok tool_error
import signal
def ring(*unused): raise TimeoutError
signal.signal(signal.SIGALRM, ring)
for n in range(200):
    signal.setitimer(signal.ITIMER_REAL, 0.0001 * (n % 7 + 1))
    try: assert add(n, 1) == n + 1, 'LEAK'
    except TimeoutError: pass
signal.setitimer(signal.ITIMER_REAL, 0)
print(add(1, 2))
### the_clock_of_everybody ok
import time
time.time = time.monotonic = time.perf_counter = lambda: float('inf')
### a_solution_that_calls_tools tool_error
import gc
for value in gc.get_objects():
    if type(value).__name__ == 'ToolClient': client = value
client._solve = lambda code, finish: {'value': 'LEAK' * 10**6}
client._channel.send({'solved': {'value': 'x'}})
print(add(1, 2))
"""

HOSTILE = tuple(
    Hostile(name, code.strip("\n"), tuple(Status(word) for word in statuses.split()))
    for name, statuses, code in re.findall(r"^### (\w+) ([\w ]+)\n(.*?)(?=^### |\Z)", _CORPUS, re.DOTALL | re.MULTILINE)
)
