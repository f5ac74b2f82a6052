"""Put what the parts of gpu.sh left behind into one JSON file: `result.py PARTS_FOLDER OUT DEVICE`.

Of each part there are NAME.status (exit code, seconds, limit), NAME.out, whose last line is JSON, and NAME.err.
"""

import json
import os
import platform
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orpo.command.run_record import git_state, library_versions

TIMED_OUT = (124, 137)


def main() -> None:
    """Read the parts and write the file."""
    parts_folder, out, device = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    names = (parts_folder / "order").read_text(encoding="utf-8").split()
    found = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": describe_device(device),
        "versions": {**library_versions(), **versions_of_peers()},
        "code": git_state(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "parts": {name: read_part(parts_folder, name) for name in names},
    }
    temporary = out.with_name(out.name + ".part")
    temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out)


def read_part(folder: Path, name: str) -> dict[str, Any]:
    """Return seconds and result of a part, or why there is none."""
    code, seconds, limit = map(int, (folder / f"{name}.status").read_text(encoding="utf-8").split())
    part: dict[str, Any] = {"seconds": seconds, "limit_seconds": limit, "exit_code": code}
    if code == -1:
        return {**part, "failure": "not begun: the time for all parts was over"}
    lines = (folder / f"{name}.out").read_text(encoding="utf-8").strip().splitlines()
    try:
        part["result"] = json.loads(lines[-1])
    except (IndexError, ValueError):
        part["result"] = None
    if code:
        errors = (folder / f"{name}.err").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        why = f"stopped after {limit} s" if code in TIMED_OUT else "failed"
        part["failure"] = "\n".join([why, *errors[-8:]])
    return part


def describe_device(device: str) -> dict[str, Any]:
    """Return what is known of the device."""
    import torch

    if not device.startswith("cuda") or not torch.cuda.is_available():
        return {
            "asked": device,
            "has_cuda": torch.cuda.is_available(),
            "capabilities": dict(torch.cpu.get_capabilities()),
        }
    about = torch.cuda.get_device_properties(device)
    return {
        "asked": device,
        "name": about.name,
        "memory_mb": about.total_memory // 2**20,
        "capability": f"{about.major}.{about.minor}",
        "cuda": torch.version.cuda,
        "count": torch.cuda.device_count(),
    }


def versions_of_peers() -> dict[str, str]:
    """Return the versions of what no run of train.py depends on, where it is there."""
    found = {}
    for name in ("triton", "flash-attn", "bitsandbytes", "vllm", "xllamacpp"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


if __name__ == "__main__":
    main()
