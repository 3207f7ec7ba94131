"""``python -m mmuemu.kernel.syscalls`` lists the implemented calls: number, name, kinds of arguments."""

from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE

if __name__ == "__main__":
    load_all()
    for number in sorted(TABLE):
        call = TABLE[number]
        print(f"{number:3d} {call.name:<15} {', '.join(call.kinds)}".rstrip())
