//! The table.

/// A field, what it does, and how that is seen.
pub struct Row {
    /// As in the body: `HostConfig.Memory`.
    pub field: &'static str,
    /// For people.
    pub does: &'static str,
    pub shown: Shown,
}

/// How an effect is seen. Bodies are JSON laid over `{"Image":"busybox"}`.
#[derive(Clone, Copy)]
pub enum Shown {
    /// A container with `base` and `own` that runs `probe` prints `says`; with `base` alone it does not.
    Prints {
        base: &'static str,
        own: &'static str,
        probe: &'static str,
        says: &'static str,
        /// Also without the field: the default is the same on this machine.
        everywhere: bool,
    },
    /// Inspect has this JSON at this pointer.
    Inspect { own: &'static str, at: &'static str, says: &'static str },
    /// Refused with 400 and the field's name.
    Refused(&'static str),
    /// This test shows it.
    Test(&'static str),
}

const fn row(field: &'static str, does: &'static str, shown: Shown) -> Row {
    Row { field, does, shown }
}

const fn prints(own: &'static str, probe: &'static str, says: &'static str) -> Shown {
    Shown::Prints { base: "", own, probe, says, everywhere: false }
}

const fn inspect(own: &'static str, at: &'static str, says: &'static str) -> Shown {
    Shown::Inspect { own, at, says }
}

const OUTPUT: &str = "is the engine's answer; ignored in a request, as in Docker";

pub const ROWS: &[Row] = &[
    row(
        "Hostname",
        "the host name in the container",
        prints(r#"{"Hostname":"me"}"#, "hostname", "me"),
    ),
    row(
        "Domainname",
        "the domain after the host name in /etc/hosts, and the NIS domain",
        prints(
            r#"{"Hostname":"me","Domainname":"lan"}"#,
            "grep -c me.lan /etc/hosts; cat /proc/sys/kernel/domainname",
            "1\nlan",
        ),
    ),
    row("User", "who runs the command", prints(r#"{"User":"app"}"#, "id -u", "12")),
    row(
        "AttachStdin",
        "kept for the client that attaches",
        inspect(r#"{"AttachStdin":true}"#, "/Config/AttachStdin", "true"),
    ),
    row(
        "AttachStdout",
        "kept for the client that attaches",
        inspect(r#"{"AttachStdout":true}"#, "/Config/AttachStdout", "true"),
    ),
    row(
        "AttachStderr",
        "kept for the client that attaches",
        inspect(r#"{"AttachStderr":true}"#, "/Config/AttachStderr", "true"),
    ),
    row(
        "ExposedPorts",
        "what PublishAllPorts publishes, and what lists and links show",
        Shown::Test("a_free_port_is_chosen_and_shown"),
    ),
    row("Tty", "the command has a terminal", prints(r#"{"Tty":true}"#, "tty", "/dev/pts/0")),
    row(
        "OpenStdin",
        "standard input is kept open for clients",
        Shown::Test("attach_without_an_upgrade_answers_200_and_half_close_ends_stdin_only"),
    ),
    row(
        "StdinOnce",
        "the first client that ends its input ends the container's",
        Shown::Test("attach_without_an_upgrade_answers_200_and_half_close_ends_stdin_only"),
    ),
    row(
        "Env",
        "variables; a name alone takes the image's away",
        prints(r#"{"Env":["A=1"]}"#, "echo $A", "1"),
    ),
    row(
        "Cmd",
        "the command, or arguments of the entry point",
        Shown::Test("run_says_output_and_exit_code_and_leaves_nothing"),
    ),
    row("Healthcheck", "how health is found", Shown::Test("health_is_found_and_told")),
    row(
        "ArgsEscaped",
        "of Windows; kept",
        inspect(r#"{"ArgsEscaped":true}"#, "/Config/ArgsEscaped", "true"),
    ),
    row("Image", "what is run", Shown::Test("run_says_output_and_exit_code_and_leaves_nothing")),
    row(
        "Volumes",
        "a volume without a name",
        prints(r#"{"Volumes":{"/vol":{}}}"#, "grep -c ' /vol ' /proc/mounts", "1"),
    ),
    row(
        "WorkingDir",
        "where the command starts",
        prints(r#"{"WorkingDir":"/var"}"#, "pwd", "/var"),
    ),
    row(
        "Entrypoint",
        "what goes in front of the command",
        Shown::Prints {
            base: "",
            own: r#"{"Entrypoint":["echo","given"]}"#,
            probe: "true",
            says: "given sh -c true",
            everywhere: false,
        },
    ),
    row(
        "NetworkDisabled",
        "no network but a loopback",
        prints(r#"{"NetworkDisabled":true}"#, "ls /sys/class/net", "lo"),
    ),
    row(
        "MacAddress",
        "the hardware address in the first network",
        prints(
            r#"{"MacAddress":"02:42:ac:11:00:99"}"#,
            "cat /sys/class/net/eth0/address",
            "02:42:ac:11:00:99",
        ),
    ),
    row(
        "OnBuild",
        "kept for images that are committed",
        inspect(r#"{"OnBuild":["RUN x"]}"#, "/Config/OnBuild", r#"["RUN x"]"#),
    ),
    row(
        "Labels",
        "labels",
        Shown::Test("a_detached_container_is_listed_reached_read_stopped_and_removed"),
    ),
    row(
        "StopSignal",
        "what a stop sends",
        Shown::Test("a_stop_sends_the_containers_own_signal_and_waits_its_own_time"),
    ),
    row(
        "StopTimeout",
        "how long a stop waits before it kills",
        Shown::Test("a_stop_sends_the_containers_own_signal_and_waits_its_own_time"),
    ),
    row(
        "Shell",
        "the shell of a health check in shell form",
        inspect(r#"{"Shell":["/bin/sh","-ec"]}"#, "/Config/Shell", r#"["/bin/sh","-ec"]"#),
    ),
    row(
        "HostConfig.Binds",
        "files of the host, and named volumes",
        prints(
            r#"{"HostConfig":{"Binds":["/bin/busybox:/given:ro"]}}"#,
            "test -x /given && echo bound",
            "bound",
        ),
    ),
    row(
        "HostConfig.ContainerIDFile",
        "kept for the client, which writes the file",
        inspect(
            r#"{"HostConfig":{"ContainerIDFile":"/x"}}"#,
            "/HostConfig/ContainerIDFile",
            r#""/x""#,
        ),
    ),
    row(
        "HostConfig.LogConfig",
        "where output is kept, and how much of it",
        Shown::Test("a_rotated_log_is_read_whole"),
    ),
    row(
        "HostConfig.NetworkMode",
        "the network",
        prints(r#"{"HostConfig":{"NetworkMode":"none"}}"#, "ls /sys/class/net", "lo"),
    ),
    row(
        "HostConfig.PortBindings",
        "ports of the host that lead to the container",
        Shown::Test("a_detached_container_is_listed_reached_read_stopped_and_removed"),
    ),
    row(
        "HostConfig.RestartPolicy",
        "when it is started again",
        Shown::Test("waits_hear_of_the_end_and_restart_policies_count"),
    ),
    row(
        "HostConfig.AutoRemove",
        "it is removed when it ends",
        Shown::Test("a_wait_is_armed_when_its_head_arrives_and_knows_the_code_of_what_is_removed"),
    ),
    row(
        "HostConfig.VolumeDriver",
        "only `local` is there",
        Shown::Refused(r#"{"HostConfig":{"VolumeDriver":"nfs"}}"#),
    ),
    row(
        "HostConfig.VolumesFrom",
        "the volumes of another container",
        Shown::Test("binds_volumes_from_and_tmpfs"),
    ),
    row(
        "HostConfig.ConsoleSize",
        "the terminal's first size: rows, columns",
        Shown::Prints {
            base: r#"{"Tty":true}"#,
            own: r#"{"HostConfig":{"ConsoleSize":[33,77]}}"#,
            probe: "stty size",
            says: "33 77",
            everywhere: false,
        },
    ),
    row(
        "HostConfig.Annotations",
        "kept and shown",
        inspect(
            r#"{"HostConfig":{"Annotations":{"a":"b"}}}"#,
            "/HostConfig/Annotations",
            r#"{"a":"b"}"#,
        ),
    ),
    row(
        "HostConfig.CapAdd",
        "more capabilities",
        prints(
            r#"{"HostConfig":{"CapAdd":["SYS_ADMIN"]}}"#,
            "mount -t tmpfs none /tmp 2>/dev/null && echo may",
            "may",
        ),
    ),
    row(
        "HostConfig.CapDrop",
        "fewer capabilities",
        prints(
            r#"{"HostConfig":{"CapDrop":["CHOWN"]}}"#,
            "chown 1 /tmp 2>/dev/null || echo may not",
            "may not",
        ),
    ),
    row(
        "HostConfig.CgroupnsMode",
        "`private` or `host`; by default as Docker: private where cgroups are of version 2",
        Shown::Prints {
            base: "",
            own: r#"{"HostConfig":{"CgroupnsMode":"private"}}"#,
            probe: "head -n 1 /proc/self/cgroup | cut -d: -f3",
            says: "/",
            everywhere: true,
        },
    ),
    row(
        "HostConfig.Dns",
        "name servers",
        prints(
            r#"{"HostConfig":{"Dns":["10.9.8.7"]}}"#,
            "grep nameserver /etc/resolv.conf",
            "nameserver 10.9.8.7",
        ),
    ),
    row(
        "HostConfig.DnsOptions",
        "options of the resolver",
        prints(
            r#"{"HostConfig":{"DnsOptions":["ndots:3"]}}"#,
            "grep -c ndots:3 /etc/resolv.conf",
            "1",
        ),
    ),
    row(
        "HostConfig.DnsSearch",
        "domains that names are looked for in",
        prints(
            r#"{"HostConfig":{"DnsSearch":["lan"]}}"#,
            "grep search /etc/resolv.conf",
            "search lan",
        ),
    ),
    row(
        "HostConfig.ExtraHosts",
        "lines of /etc/hosts",
        prints(r#"{"HostConfig":{"ExtraHosts":["you:10.1.2.3"]}}"#, "grep -c you /etc/hosts", "1"),
    ),
    row(
        "HostConfig.GroupAdd",
        "further groups",
        prints(r#"{"HostConfig":{"GroupAdd":["77"]}}"#, "id -G", "0 77"),
    ),
    row(
        "HostConfig.IpcMode",
        "whose shared memory it sees",
        prints(r#"{"HostConfig":{"IpcMode":"host"}}"#, "stat -L -c %i /proc/self/ns/ipc", "NS_ipc"),
    ),
    row(
        "HostConfig.Links",
        "another container's name and variables, on the default network",
        prints(
            r#"{"HostConfig":{"Links":["other:data"]}}"#,
            "echo $DATA_ENV_A; grep -c data /etc/hosts",
            "1\n1",
        ),
    ),
    row(
        "HostConfig.OomScoreAdj",
        "who is killed first when memory is short",
        prints(r#"{"HostConfig":{"OomScoreAdj":500}}"#, "cat /proc/self/oom_score_adj", "500"),
    ),
    row(
        "HostConfig.PidMode",
        "whose processes it sees",
        prints(r#"{"HostConfig":{"PidMode":"host"}}"#, "stat -L -c %i /proc/self/ns/pid", "NS_pid"),
    ),
    row(
        "HostConfig.Privileged",
        "all capabilities and devices, nothing masked",
        prints(
            r#"{"HostConfig":{"Privileged":true}}"#,
            "mount -t tmpfs none /tmp 2>/dev/null && echo may",
            "may",
        ),
    ),
    row(
        "HostConfig.PublishAllPorts",
        "every exposed port on a free one of the host",
        Shown::Test("a_free_port_is_chosen_and_shown"),
    ),
    row(
        "HostConfig.ReadonlyRootfs",
        "the root file system cannot be written",
        prints(
            r#"{"HostConfig":{"ReadonlyRootfs":true}}"#,
            "touch /file 2>/dev/null || echo may not",
            "may not",
        ),
    ),
    row(
        "HostConfig.SecurityOpt",
        "no-new-privileges, seccomp, apparmor, systempaths",
        prints(
            r#"{"HostConfig":{"SecurityOpt":["no-new-privileges"]}}"#,
            "grep NoNewPrivs /proc/self/status | tr -dc 01",
            "1",
        ),
    ),
    row(
        "HostConfig.Tmpfs",
        "memory as a directory",
        prints(
            r#"{"HostConfig":{"Tmpfs":{"/mem":"size=1m"}}}"#,
            "mount | grep -c ' /mem .*size=1024k'",
            "1",
        ),
    ),
    row(
        "HostConfig.UTSMode",
        "`host`: the host's name",
        prints(r#"{"HostConfig":{"UTSMode":"host"}}"#, "stat -L -c %i /proc/self/ns/uts", "NS_uts"),
    ),
    row(
        "HostConfig.UsernsMode",
        "`host` alone (or nothing) until the engine maps users",
        Shown::Refused(r#"{"HostConfig":{"UsernsMode":"other"}}"#),
    ),
    row(
        "HostConfig.ShmSize",
        "bytes of /dev/shm",
        prints(r#"{"HostConfig":{"ShmSize":1048576}}"#, "mount | grep -c 'shm.*size=1024k'", "1"),
    ),
    row(
        "HostConfig.Sysctls",
        "kernel parameters of its namespaces",
        prints(
            r#"{"HostConfig":{"Sysctls":{"kernel.msgmax":"4096"}}}"#,
            "cat /proc/sys/kernel/msgmax",
            "4096",
        ),
    ),
    row(
        "HostConfig.Runtime",
        "Docker's names of its default; there is one runtime",
        Shown::Refused(r#"{"HostConfig":{"Runtime":"nvidia"}}"#),
    ),
    row(
        "HostConfig.Mounts",
        "binds, volumes and tmpfs in their long form",
        Shown::Test("a_directory_inside_a_volume_is_mounted_and_cannot_lead_out"),
    ),
    row(
        "HostConfig.MaskedPaths",
        "what cannot be read",
        prints(r#"{"HostConfig":{"MaskedPaths":["/etc/passwd"]}}"#, "wc -c < /etc/passwd", "0"),
    ),
    row(
        "HostConfig.ReadonlyPaths",
        "what cannot be written",
        prints(
            r#"{"HostConfig":{"ReadonlyPaths":["/tmp"]}}"#,
            "touch /tmp/x 2>/dev/null || echo may not",
            "may not",
        ),
    ),
    row(
        "HostConfig.Init",
        "a first process that reaps",
        Shown::Refused(r#"{"HostConfig":{"Init":true}}"#),
    ),
    row(
        "HostConfig.Cgroup",
        "of Docker's first years",
        Shown::Refused(r#"{"HostConfig":{"Cgroup":"x"}}"#),
    ),
    row(
        "HostConfig.StorageOpt",
        "layers have no quota",
        Shown::Refused(r#"{"HostConfig":{"StorageOpt":{"size":"1G"}}}"#),
    ),
    row(
        "HostConfig.Isolation",
        "of Windows; `default` alone makes sense",
        Shown::Refused(r#"{"HostConfig":{"Isolation":"hyperv"}}"#),
    ),
    row(
        "HostConfig.CpuShares",
        "weight among containers",
        prints(
            r#"{"HostConfig":{"CpuShares":512}}"#,
            "cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu.weight 2>/dev/null",
            "512|20",
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
            "head -n 1 /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null || echo",
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
        "weight among containers at the disk: 10 to 1000",
        Shown::Refused(r#"{"HostConfig":{"BlkioWeight":5}}"#),
    ),
    row(
        "HostConfig.BlkioWeightDevice",
        "the same at one disk",
        Shown::Refused(r#"{"HostConfig":{"BlkioWeightDevice":[{"Path":"/dev/x","Weight":5}]}}"#),
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
        "labels, a directory inside, not filled from the image",
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

/// What `says` stands for here: `NS_x` is the number of our own namespace; of `one|two` the first is for
/// cgroups of version 1.
pub fn fill_in(says: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    if let Some(kind) = says.strip_prefix("NS_") {
        let path = format!("/proc/self/ns/{kind}");
        return std::fs::metadata(path).unwrap().ino().to_string();
    }
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    match says.split_once('|') {
        Some((_, two)) if v2 => two.to_owned(),
        Some((one, _)) => one.to_owned(),
        None => says.to_owned(),
    }
}

/// A text with a block device of this machine in it.
pub fn with_device(text: &str) -> String {
    if !text.contains("BLOCK_") {
        return text.to_owned();
    }
    let node = block_device();
    let number = std::os::unix::fs::MetadataExt::rdev(&std::fs::metadata(&node).unwrap());
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    text.replace("BLOCK_DEVICE", &node)
        .replace("BLOCK_MAJOR", &major.to_string())
        .replace("BLOCK_MINOR", &minor.to_string())
}

fn block_device() -> String {
    let names = std::fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.file_name());
    let mut nodes: Vec<String> =
        names.map(|name| format!("/dev/{}", name.to_string_lossy())).collect();
    nodes.retain(|node| std::path::Path::new(node).exists());
    nodes.sort_by_key(|node| node.starts_with("/dev/loop") || node.starts_with("/dev/ram"));
    nodes.into_iter().next().expect("the machine has a disk")
}

/// Removes the cgroups that a row has had made.
pub fn sweep() {
    let mut roots = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    roots.extend(std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path()));
    for root in roots {
        // Most hierarchies have none.
        let _ = std::fs::remove_dir(root.join("minke-fields"));
    }
}
