//! What is run, and what it asks of its host.

use super::rows::{Row, Shown, inspect, prints, row};

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
        Shown::Test("every_exposed_port_is_published_on_a_free_one"),
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
        "the hardware address in the network of NetworkMode",
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
        "the driver of volumes that are made for it; only `local` is there",
        Shown::Test("a_driver_that_is_not_there_is_refused_where_a_volume_needs_it"),
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
        "whose shared memory it sees: its own (`private`, or `shareable` with others), `none`, the host's, another container's",
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
        "whose processes it sees: its own, the host's, another container's",
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
        Shown::Test("every_exposed_port_is_published_on_a_free_one"),
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
        "`host`: the host's users, where the engine maps those of containers",
        Shown::Refused(r#"{"HostConfig":{"UsernsMode":"other"}}"#),
    ),
    row(
        "HostConfig.ShmSize",
        "bytes of /dev/shm",
        prints(r#"{"HostConfig":{"ShmSize":1048576}}"#, "mount | grep -c 'shm.*size=1024k'", "1"),
    ),
    row(
        "HostConfig.Sysctls",
        "kernel parameters of its namespaces (kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.*, net.*); others are refused by name",
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
        Shown::Test("an_init_takes_the_orphans_and_hands_on_signals"),
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
];
