#!/usr/bin/python3
"""initiator.py write|half-open HOST:PORT TARGET INITIATOR [USER SECRET]: an initiator for tests of the iscsi provider.

write: logs in (libiscsi), writes a growing number into block 0 until it fails, prints each number. Never logs in again.
half-open: begins a login, says `begun`, ends it when a line comes on standard input, and prints `in` or `refused`."""
import ctypes as C, socket, struct, sys

def write(portal, target, initiator, user=None, secret=None):
    lib = C.CDLL("libiscsi.so.7")
    for name in ("iscsi_create_context", "iscsi_write10_sync"):
        getattr(lib, name).restype = C.c_void_p
    lib.iscsi_get_error.restype = C.c_char_p
    context = C.c_void_p(lib.iscsi_create_context(initiator.encode()))
    lib.iscsi_set_targetname(context, target.encode())
    lib.iscsi_set_session_type(context, 2)
    lib.iscsi_set_noautoreconnect(context, 1)
    if user:
        lib.iscsi_set_initiator_username_pwd(context, user.encode(), secret.encode())
    if lib.iscsi_full_connect_sync(context, portal.encode(), 1):
        sys.exit("login: " + lib.iscsi_get_error(context).decode())
    number = 0
    while True:
        number += 1
        block = C.create_string_buffer(struct.pack(">Q", number).ljust(512, b"\0"), 512)
        task = lib.iscsi_write10_sync(context, 1, 0, block, 512, 512, 0, 0, 0, 0, 0)
        # struct scsi_task begins with its status.
        if not task or C.cast(task, C.POINTER(C.c_int)).contents.value:
            sys.exit("write: " + lib.iscsi_get_error(context).decode())
        print(number, flush=True)

def half_open(portal, target, initiator):
    host, port = portal.split(":")
    wire = socket.create_connection((host, int(port)))
    wire.settimeout(60)
    def take(length):
        taken = b""
        while len(taken) < length:
            more = wire.recv(length - len(taken))
            if not more:
                return None
            taken += more
        return taken
    def login(stage, following, keys):  # RFC 7143, 11.12: a request that asks for the next stage
        data = b"".join(key.encode() + b"\0" for key in keys)
        head = struct.pack(">BBHI", 0x43, 0x80 | stage << 2 | following, 0, len(data))
        head += bytes([0x40, 0, 0, 1, 0, 0, 0, 0]) + struct.pack(">IIII", 1, 0, 1, 0) + bytes(16)
        wire.sendall(head + data + bytes(-len(data) % 4))
        answer = take(48)
        if answer is None:
            return None
        length = struct.unpack(">I", answer[4:8])[0] & 0xFFFFFF
        take(length + -length % 4)
        return answer[36]
    keys = ["InitiatorName=" + initiator, "TargetName=" + target, "SessionType=Normal", "AuthMethod=None"]
    if login(0, 1, keys) != 0:
        sys.exit("login: refused at once")
    print("begun", flush=True)
    sys.stdin.readline()
    try:
        status = login(1, 3, ["HeaderDigest=None", "DataDigest=None"])
    except OSError:
        status = None
    print("in" if status == 0 else "refused", flush=True)
    sys.stdin.readline()

{"write": write, "half-open": half_open}[sys.argv[1]](*sys.argv[2:])
