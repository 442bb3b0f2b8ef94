//! Limits, mounts in their long form, and places in networks.

use super::rows::{Row, Shown, inspect, prints, row};

const OUTPUT: &str = "is the engine's answer; ignored in a request, as in Docker";

pub const ROWS: &[Row] = &[
    row(
        "HostConfig.CpuShares",
        "weight among containers",
        prints(
            r#"{"HostConfig":{"CpuShares":512}}"#,
            "cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu.weight 2>/dev/null",
            "512|59",
        ),
    ),
    row(
        "HostConfig.Memory",
        "most memory, bytes",
        prints(
            r#"{"HostConfig":{"Memory":67108864}}"#,
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null",
            "67108864",
        ),
    ),
    row(
        "HostConfig.NanoCpus",
        "processors, in billionths",
        Shown::Test("limits_are_those_that_were_asked_for"),
    ),
    row(
        "HostConfig.CgroupParent",
        "the cgroup that the container's is made in",
        prints(
            r#"{"HostConfig":{"CgroupParent":"/minke-fields"}}"#,
            "grep -q /minke-fields/ /proc/self/cgroup && echo inside",
            "inside",
        ),
    ),
    row(
        "HostConfig.CpuPeriod",
        "microseconds that a quota is of",
        Shown::Prints {
            base: r#"{"HostConfig":{"CpuQuota":25000}}"#,
            own: r#"{"HostConfig":{"CpuPeriod":50000}}"#,
            probe: "cat /sys/fs/cgroup/cpu/cpu.cfs_period_us 2>/dev/null || cut -d' ' -f2 /sys/fs/cgroup/cpu.max",
            says: "50000",
            everywhere: false,
        },
    ),
    row(
        "HostConfig.CpuQuota",
        "microseconds of a period",
        prints(
            r#"{"HostConfig":{"CpuQuota":25000}}"#,
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max",
            "25000",
        ),
    ),
    row(
        "HostConfig.CpusetCpus",
        "which processors",
        Shown::Test("limits_are_those_that_were_asked_for"),
    ),
    row(
        "HostConfig.CpusetMems",
        "which memory nodes",
        Shown::Prints {
            base: "",
            own: r#"{"HostConfig":{"CpusetMems":"0"}}"#,
            probe: "cat /sys/fs/cgroup/cpuset/cpuset.mems /sys/fs/cgroup/cpuset.mems 2>/dev/null",
            says: "0",
            everywhere: true,
        },
    ),
    row(
        "HostConfig.Devices",
        "devices of the host",
        prints(
            r#"{"HostConfig":{"Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/other","CgroupPermissions":"rwm"}]}}"#,
            "test -c /dev/other && echo there",
            "there",
        ),
    ),
    row(
        "HostConfig.DeviceCgroupRules",
        "which devices may be opened",
        prints(
            r#"{"HostConfig":{"DeviceCgroupRules":["b BLOCK_MAJOR:BLOCK_MINOR r"]}}"#,
            "busybox mknod /tmp/k b BLOCK_MAJOR BLOCK_MINOR; head -c 0 /tmp/k 2>/dev/null && echo may",
            "may",
        ),
    ),
    row(
        "HostConfig.MemoryReservation",
        "bytes to get down to when memory is short",
        prints(
            r#"{"HostConfig":{"MemoryReservation":33554432}}"#,
            "cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes /sys/fs/cgroup/memory.low 2>/dev/null",
            "33554432",
        ),
    ),
    row(
        "HostConfig.MemorySwap",
        "most memory and swap together",
        Shown::Prints {
            base: r#"{"HostConfig":{"Memory":67108864}}"#,
            own: r#"{"HostConfig":{"MemorySwap":100663296}}"#,
            probe: "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/memory.swap.max 2>/dev/null",
            says: "100663296|33554432",
            everywhere: false,
        },
    ),
    row(
        "HostConfig.MemorySwappiness",
        "how readily it swaps; only with cgroups of version 1",
        prints(
            r#"{"HostConfig":{"MemorySwappiness":10}}"#,
            "cat /sys/fs/cgroup/memory/memory.swappiness 2>/dev/null || echo",
            "10|",
        ),
    ),
    row(
        "HostConfig.OomKillDisable",
        "wait instead of being killed; only with cgroups of version 1",
        prints(
            r#"{"HostConfig":{"OomKillDisable":true,"Memory":67108864}}"#,
            "cd /sys/fs/cgroup/memory 2>/dev/null && for i in $(seq 10); do head -n 1 memory.oom_control | grep 1 && break; sleep 0.1; done",
            "oom_kill_disable 1|",
        ),
    ),
    row(
        "HostConfig.PidsLimit",
        "most processes",
        Shown::Test("limits_are_those_that_were_asked_for"),
    ),
    row(
        "HostConfig.Ulimits",
        "limits of its processes",
        Shown::Test("limits_are_those_that_were_asked_for"),
    ),
    row(
        "HostConfig.BlkioWeight",
        "weight among containers at disks, 10 to 1000; refused where the kernel has no weights",
        Shown::Test("limits_of_disks_are_those_that_were_asked_for"),
    ),
    row(
        "HostConfig.BlkioWeightDevice",
        "the same at one disk, whose scheduler has to know weights (bfq)",
        Shown::Test("limits_of_disks_are_those_that_were_asked_for"),
    ),
    row(
        "HostConfig.BlkioDeviceReadBps",
        "most bytes read a second",
        prints(
            r#"{"HostConfig":{"BlkioDeviceReadBps":[{"Path":"BLOCK_DEVICE","Rate":1048576}]}}"#,
            "cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device /sys/fs/cgroup/io.max 2>/dev/null | tr ' =' '\\n\\n' | grep 1048576",
            "1048576",
        ),
    ),
    row(
        "HostConfig.BlkioDeviceWriteBps",
        "most bytes written a second",
        prints(
            r#"{"HostConfig":{"BlkioDeviceWriteBps":[{"Path":"BLOCK_DEVICE","Rate":1048577}]}}"#,
            "cat /sys/fs/cgroup/blkio/blkio.throttle.write_bps_device /sys/fs/cgroup/io.max 2>/dev/null | tr ' =' '\\n\\n' | grep 1048577",
            "1048577",
        ),
    ),
    row(
        "HostConfig.BlkioDeviceReadIOps",
        "most reads a second",
        prints(
            r#"{"HostConfig":{"BlkioDeviceReadIOps":[{"Path":"BLOCK_DEVICE","Rate":1001}]}}"#,
            "cat /sys/fs/cgroup/blkio/blkio.throttle.read_iops_device /sys/fs/cgroup/io.max 2>/dev/null | tr ' =' '\\n\\n' | grep 1001",
            "1001",
        ),
    ),
    row(
        "HostConfig.BlkioDeviceWriteIOps",
        "most writes a second",
        prints(
            r#"{"HostConfig":{"BlkioDeviceWriteIOps":[{"Path":"BLOCK_DEVICE","Rate":1002}]}}"#,
            "cat /sys/fs/cgroup/blkio/blkio.throttle.write_iops_device /sys/fs/cgroup/io.max 2>/dev/null | tr ' =' '\\n\\n' | grep 1002",
            "1002",
        ),
    ),
    row(
        "HostConfig.CpuRealtimePeriod",
        "real-time scheduling is not given to containers",
        Shown::Refused(r#"{"HostConfig":{"CpuRealtimePeriod":1000}}"#),
    ),
    row(
        "HostConfig.CpuRealtimeRuntime",
        "real-time scheduling is not given to containers",
        Shown::Refused(r#"{"HostConfig":{"CpuRealtimeRuntime":1000}}"#),
    ),
    row(
        "HostConfig.DeviceRequests",
        "drivers of devices are not known here",
        Shown::Refused(r#"{"HostConfig":{"DeviceRequests":[{"Count":-1}]}}"#),
    ),
    row(
        "HostConfig.KernelMemory",
        "taken out of Linux",
        Shown::Refused(r#"{"HostConfig":{"KernelMemory":1048576}}"#),
    ),
    row(
        "HostConfig.KernelMemoryTCP",
        "taken out of Docker",
        Shown::Refused(r#"{"HostConfig":{"KernelMemoryTCP":1048576}}"#),
    ),
    row("HostConfig.CpuCount", "of Windows", Shown::Refused(r#"{"HostConfig":{"CpuCount":1}}"#)),
    row(
        "HostConfig.CpuPercent",
        "of Windows",
        Shown::Refused(r#"{"HostConfig":{"CpuPercent":1}}"#),
    ),
    row(
        "HostConfig.IOMaximumIOps",
        "of Windows",
        Shown::Refused(r#"{"HostConfig":{"IOMaximumIOps":1}}"#),
    ),
    row(
        "HostConfig.IOMaximumBandwidth",
        "of Windows",
        Shown::Refused(r#"{"HostConfig":{"IOMaximumBandwidth":1}}"#),
    ),
    row(
        "HostConfig.Mounts.Type",
        "`bind`, `volume` or `tmpfs`",
        Shown::Refused(
            r#"{"HostConfig":{"Mounts":[{"Type":"npipe","Source":"/x","Target":"/y"}]},"Labels":{"Type":""}}"#,
        ),
    ),
    row(
        "HostConfig.Mounts.Source",
        "what is mounted",
        prints(
            r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/bin/busybox","Target":"/given"}]}}"#,
            "test -x /given && echo bound",
            "bound",
        ),
    ),
    row(
        "HostConfig.Mounts.Target",
        "where",
        prints(
            r#"{"HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/a/b"}]}}"#,
            "grep -c ' /a/b ' /proc/mounts",
            "1",
        ),
    ),
    row(
        "HostConfig.Mounts.ReadOnly",
        "it cannot be written",
        Shown::Prints {
            base: "",
            own: r#"{"HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/mem","ReadOnly":true}]}}"#,
            probe: "touch /mem/x 2>/dev/null || echo may not",
            says: "may not",
            everywhere: true,
        },
    ),
    row(
        "HostConfig.Mounts.Consistency",
        "a hint to other systems; kept",
        inspect(
            r#"{"HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/a","Consistency":"cached"}]}}"#,
            "/HostConfig/Mounts/0/Consistency",
            r#""cached""#,
        ),
    ),
    row(
        "HostConfig.Mounts.BindOptions",
        "propagation; a missing source is made",
        Shown::Test("mounts_in_their_long_form_have_all_their_options"),
    ),
    row(
        "HostConfig.Mounts.VolumeOptions",
        "labels, a directory inside, not filled from the image, options of the local driver",
        Shown::Test("mounts_in_their_long_form_have_all_their_options"),
    ),
    row(
        "HostConfig.Mounts.TmpfsOptions",
        "size, mode and further options",
        Shown::Test("mounts_in_their_long_form_have_all_their_options"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.IPAMConfig",
        "the container's address in the network",
        Shown::Test("addresses_names_and_links_of_an_endpoint_are_those_asked_for"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.Links",
        "names that this container alone gives others of the network",
        Shown::Test("addresses_names_and_links_of_an_endpoint_are_those_asked_for"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.Aliases",
        "further names in the network",
        Shown::Test("names_and_aliases_resolve_between_containers_of_a_network"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.MacAddress",
        "the hardware address in the network",
        prints(
            r#"{"HostConfig":{"NetworkMode":"net"},"NetworkingConfig":{"EndpointsConfig":{"net":{"MacAddress":"02:42:ac:11:00:98"}}}}"#,
            "cat /sys/class/net/eth0/address",
            "02:42:ac:11:00:98",
        ),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.DriverOpts",
        "kept and shown; the networks of this engine have none",
        inspect(
            r#"{"HostConfig":{"NetworkMode":"net"},"NetworkingConfig":{"EndpointsConfig":{"net":{"DriverOpts":{"a":"b"}}}}}"#,
            "/NetworkSettings/Networks/net/DriverOpts",
            r#"{"a":"b"}"#,
        ),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.NetworkID",
        OUTPUT,
        Shown::Test("what_an_endpoint_answers_is_not_taken_from_a_request"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.EndpointID",
        OUTPUT,
        Shown::Test("what_an_endpoint_answers_is_not_taken_from_a_request"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.Gateway",
        OUTPUT,
        Shown::Test("what_an_endpoint_answers_is_not_taken_from_a_request"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.IPAddress",
        OUTPUT,
        Shown::Test("what_an_endpoint_answers_is_not_taken_from_a_request"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.IPPrefixLen",
        OUTPUT,
        Shown::Test("what_an_endpoint_answers_is_not_taken_from_a_request"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.IPv6Gateway",
        OUTPUT,
        Shown::Test("what_an_endpoint_answers_is_not_taken_from_a_request"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.GlobalIPv6Address",
        OUTPUT,
        Shown::Test("what_an_endpoint_answers_is_not_taken_from_a_request"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.GlobalIPv6PrefixLen",
        OUTPUT,
        Shown::Test("what_an_endpoint_answers_is_not_taken_from_a_request"),
    ),
    row(
        "NetworkingConfig.EndpointsConfig.DNSNames",
        OUTPUT,
        Shown::Test("what_an_endpoint_answers_is_not_taken_from_a_request"),
    ),
];
