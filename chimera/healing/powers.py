"""What gives Python code power over more than its own values: the tables that `chimera.healing.capabilities` reads by.

A module is harmless when nothing in it reaches files, processes, the network, other code or the interpreter, except
the names of it that stand in `NAMES`. Whatever is in no table is an import that has to be allowed by name.
"""

from __future__ import annotations

HARMLESS = frozenset(
    """
    __future__ abc array asyncio base64 binascii bisect calendar cmath codecs collections colorsys contextlib
    contextvars copy csv dataclasses datetime decimal difflib enum fractions functools graphlib hashlib heapq hmac html
    io ipaddress itertools json keyword logging math numbers operator pprint queue random re reprlib secrets shlex
    statistics string struct textwrap threading time types typing typing_extensions unicodedata uuid warnings weakref
    zlib zoneinfo
    """.split()
)
"""Modules that a patch may import without asking."""

_MODULES = {
    "network": """socket _socket ssl http urllib urllib3 requests httpx httpx2 httpcore aiohttp ftplib smtplib poplib
        imaplib nntplib telnetlib xmlrpc socketserver select selectors websocket websockets paramiko grpc webbrowser
        wsgiref redis psycopg obstore ray openai anthropic boto3""",
    "process": "subprocess multiprocessing pty pexpect posix _posixsubprocess",
    "code": "importlib runpy code codeop imp pkgutil zipimport pydoc ast timeit",
    "memory": "ctypes _ctypes mmap cffi",
    "exit": "atexit signal faulthandler",
    "introspection": """sys gc inspect builtins bltns __main__ traceback tracemalloc dis symtable sysconfig site
        linecache pdb bdb trace opcode profile cProfile""",
    "tampering": "pytest _pytest pluggy unittest mock conftest hypothesis doctest",
    "pickle": "pickle _pickle marshal shelve dill cloudpickle copyreg joblib",
    "files": "os shutil tempfile pathlib glob fileinput zipfile tarfile sqlite3 dbm gzip bz2 lzma filecmp configparser",
    "environment": "getpass platform pwd grp resource",
    "threads": "_thread concurrent",
}
MODULES = {name: kind for kind, names in _MODULES.items() for name in names.split()}
"""Modules with power, and of what kind."""

_NAMES = {
    "": """ast.literal_eval os.path os.sep os.linesep os.pathsep os.curdir os.pardir os.name os.fspath os.fsencode
        os.fsdecode
        os.PathLike os.cpu_count os.SEEK_SET os.SEEK_END sys.maxsize sys.byteorder sys.version_info sys.float_info
        sys.int_info sys.hash_info sys.getsizeof sys.intern urllib.parse http.HTTPStatus types.SimpleNamespace
        types.MappingProxyType types.GenericAlias types.NoneType types.UnionType types.EllipsisType types.MethodType
        types.NotImplementedType asyncio.to_thread""",
    "environment": """os.environ os.environb os.getenv os.getenvb os.putenv os.unsetenv os.getcwd os.uname os.getuid
        os.getpid os.getppid os.getlogin sys.argv sys.executable sys.path""",
    "process": """os.system os.popen os.fork os.forkpty os.kill os.killpg os.wait os.waitpid os.nice uuid.getnode
        uuid.uuid1 asyncio.create_subprocess_exec asyncio.create_subprocess_shell asyncio.subprocess""",
    "exit": "os._exit os.abort sys.exit",
    "files": """os.path.exists os.path.isfile os.path.isdir os.path.getsize os.path.getmtime
        os.path.expanduser os.path.expandvars os.path.lexists os.path.islink os.path.samefile io.open
        io.FileIO io.open_code codecs.open logging.FileHandler logging.handlers logging.config logging.basicConfig
        contextlib.chdir hashlib.file_digest sys.stdin sys.stdout sys.stderr sys.__stdout__ sys.__stderr__""",
    "network": """asyncio.open_connection asyncio.open_unix_connection asyncio.start_server asyncio.start_unix_server
        logging.handlers""",
    "dynamic": """operator.attrgetter operator.methodcaller string.Formatter types dataclasses.make_dataclass
        typing.get_type_hints typing.ForwardRef typing_extensions.get_type_hints typing_extensions.ForwardRef
        typing._eval_type copy.Error""",
    "threads": "threading.Thread threading.Timer",
    "introspection": """threading.settrace threading.setprofile threading.settrace_all_threads threading.enumerate
        threading.setprofile_all_threads threading.excepthook warnings.showwarning asyncio.all_tasks logging.Logger.root
        contextvars.copy_context""",
}
NAMES = {name: kind for kind, names in _NAMES.items() for name in names.split()}
"""Names in modules, and of what kind; the longest that fits counts. No kind: harmless."""

BY_MEMBER = frozenset(("os", "sys", "ast"))
"""Modules whose import says nothing: it matters what of them is used."""

PREFIXES = {"os.exec": "process", "os.spawn": "process", "os.posix_spawn": "process"}
"""As NAMES, for families of names."""

_BUILTINS = {
    "code": "eval exec compile __import__",
    "exit": "exit quit SystemExit KeyboardInterrupt GeneratorExit",
    "introspection": """globals locals vars breakpoint __builtins__ __loader__ __spec__ __build_class__ __debugger__
        copyright credits license help""",
    "dynamic": "getattr setattr delattr",
    "files": "open input",
}
BUILTINS = {name: kind for kind, names in _BUILTINS.items() for name in names.split()}
"""Names of Python itself."""

_ATTRIBUTES = {
    "exit": "_exit abort add_signal_handler",
    "process": """system popen Popen check_output check_call execv execve execvp execvpe execl execle execlp fork
        forkpty posix_spawn posix_spawnp spawnv spawnl killpg subprocess_exec subprocess_shell""",
    "network": """urlopen create_connection create_server create_datagram_endpoint create_unix_connection
        create_unix_server sock_connect sock_sendto sock_sendall sock_accept getaddrinfo getnameinfo start_tls""",
    "introspection": """f_back f_globals f_locals f_builtins f_code gi_frame gi_code cr_frame cr_code ag_frame ag_code
        tb_frame tb_next co_code co_consts _getframe _current_frames settrace setprofile addaudithook get_objects
        get_referrers get_referents currentframe walk_stack mro""",
    "code": "import_module exec_module load_module find_spec reload eval exec",
    "files": """open write_text write_bytes read_text read_bytes unlink rmdir rmtree mkdir makedirs touch symlink_to
        hardlink_to chmod iterdir rglob scandir listdir connect_read_pipe connect_write_pipe add_reader add_writer""",
    "environment": "environ getenv expandvars",
}
ATTRIBUTES = {name: kind for kind, names in _ATTRIBUTES.items() for name in names.split()}
"""Attributes that tell a power whatever they are read of."""

DUNDERS = frozenset(
    """
    __init__ __new__ __name__ __qualname__ __doc__ __module__ __class__ __file__ __len__ __iter__ __next__ __aiter__
    __anext__ __enter__ __exit__ __aenter__ __aexit__ __call__ __repr__ __str__ __format__ __hash__ __bool__ __int__
    __float__ __index__ __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __truediv__ __floordiv__
    __mod__ __pow__ __neg__ __pos__ __abs__ __and__ __or__ __xor__ __invert__ __lshift__ __rshift__ __round__
    __getitem__ __setitem__ __delitem__ __missing__ __reversed__ __post_init__ __slots__ __all__ __version__
    __author__ __match_args__ __main__ __future__ __await__ __cause__ __context__ __annotations__ __copy__ __deepcopy__
    """.split()
)
"""Names with double underscores that ordinary code uses. Any other is introspection."""

DEFINED = frozenset(
    """
    __del__ __set_name__ __class_getitem__ __bytes__ __complex__ __ceil__ __floor__ __trunc__ __fspath__ __sizeof__
    __length_hint__ __divmod__ __rdivmod__ __matmul__ __rtruediv__ __rfloordiv__ __rmod__ __rpow__ __imul__ __itruediv__
    __ifloordiv__ __imod__ __ipow__ __iand__ __ior__ __ixor__ __rand__ __ror__ __rxor__ __getstate__ __setstate__
    """.split()
)
"""Names with double underscores that a class may define, though to call them by name is no ordinary thing."""

METACLASSES = frozenset("abc.ABCMeta enum.EnumMeta enum.EnumType".split())
"""What makes classes of whatever members it is given, when it is called."""

COMPARISONS = frozenset(
    "__eq__ __ne__ __lt__ __le__ __gt__ __ge__ __contains__ __instancecheck__ __subclasscheck__".split()
)
"""Who defines these can be equal to whatever a test expects."""
