import os
from pathlib import Path

import pytest

from headrace.supervisor.cpus import bounded, cpu_count, quota

V2 = "31 24 0:27 {group} {place} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 24 0:28 {group} {place} rw,nosuid - cgroup cgroup rw,{controllers}"


def tree(root: Path, cgroup: str, mounts: list[str], files: dict[str, str]) -> Path:
    for name, text in {
        "proc/self/cgroup": cgroup,
        "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/root rw\n" + "\n".join(mounts) + "\n",
        **files,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(group: str = "/", place: str = "/sys/fs/cgroup") -> str:
    return V2.format(group=group, place=place)


def v1(controllers: str = "cpu,cpuacct", group: str = "/", place: str = "/sys/fs/cgroup/cpu") -> str:
    return V1.format(group=group, place=place, controllers=controllers)


class TestVersion2:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("150000 100000\n", 1.5),
            ("max 100000\n", None),
            ("", None),
            ("0 100000", None),
            ("5 0", None),
            ("x y", None),
        ],
    )
    def test_own_group(self, tmp_path: Path, text: str, expected: float | None) -> None:
        tree(tmp_path, "0::/\n", [v2()], {"sys/fs/cgroup/cpu.max": text})
        assert quota(tmp_path) == expected

    def test_the_tightest_of_all_above_counts(self, tmp_path: Path) -> None:
        files = {
            "sys/fs/cgroup/a.slice/b:1.service/cpu.max": "800000 100000",
            "sys/fs/cgroup/a.slice/cpu.max": "300000 100000",
            "sys/fs/cgroup/cpu.max": "400000 100000",
        }
        tree(tmp_path, "0::/a.slice/b:1.service\n", [v2()], files)
        assert quota(tmp_path) == 3.0

    def test_a_mount_below_the_root(self, tmp_path: Path) -> None:
        files = {"mnt/my groups/c/cpu.max": "200000 100000", "mnt/my groups/cpu.max": "max 100000"}
        tree(tmp_path, "0::/pod/c\n", [v2("/pod", r"/mnt/my\040groups")], files)
        assert quota(tmp_path) == 2.0

    @pytest.mark.parametrize("path", ["/docker/123", "/../../other", "/poddy"])
    def test_a_group_outside_of_the_mount(self, tmp_path: Path, path: str) -> None:
        tree(tmp_path, f"0::{path}\n", [v2("/pod")], {"sys/fs/cgroup/cpu.max": "200000 100000"})
        assert quota(tmp_path) == 2.0


class TestVersion1:
    @pytest.mark.parametrize(("quota_us", "expected"), [("50000\n", 0.5), ("-1\n", None)])
    def test_quota(self, tmp_path: Path, quota_us: str, expected: float | None) -> None:
        files = {
            "sys/fs/cgroup/cpu/d/cpu.cfs_quota_us": quota_us,
            "sys/fs/cgroup/cpu/d/cpu.cfs_period_us": "100000\n",
        }
        tree(tmp_path, "4:memory:/x\n2:cpuacct,cpu:/d\n", [v1()], files)
        assert quota(tmp_path) == expected

    def test_other_controllers_do_not_count(self, tmp_path: Path) -> None:
        files = {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        }
        tree(tmp_path, "3:cpuset:/\n1:name=systemd:/\n", [v1("cpuset")], files)
        assert quota(tmp_path) is None

    def test_both_versions_are_looked_at(self, tmp_path: Path) -> None:
        files = {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/unified/cpu.max": "300000 100000",
        }
        tree(tmp_path, "1:cpu:/\n0::/\n", [v1(), v2(place="/sys/fs/cgroup/unified")], files)
        assert quota(tmp_path) == 3.0


@pytest.mark.parametrize("mounts", [["x"], ["1 2 3 4 5 6 -"], ["- cgroup2 a b c d"]])
def test_odd_lines(tmp_path: Path, mounts: list[str]) -> None:
    assert quota(tree(tmp_path, "nonsense\n0\n0::/\n", mounts, {})) is None


def test_without_proc(tmp_path: Path) -> None:
    assert quota(tmp_path) is None


@pytest.mark.parametrize(
    ("usable", "granted", "expected"),
    [(4, None, 4), (4, 1.5, 2), (4, 8.0, 4), (4, 0.1, 1), (0, None, 1), (4, 2.0, 2)],
)
def test_bounds(usable: int, granted: float | None, expected: int) -> None:
    assert bounded(usable, granted) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_affinity() -> None:
    before = os.sched_getaffinity(0)
    assert 1 <= cpu_count() <= len(before)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cpu_count() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu_count() == 1
