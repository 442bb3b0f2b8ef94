//! The table as a page, and values in which every field says something: a field that is added to a wire
//! type does not compile here until it is given one, and then has no row until it is given that.

use std::collections::BTreeMap;

use minke_engine_client::wire::{
    BindOptions, ContainerConfig, DeviceMapping, EndpointIpam, EndpointSettings, HealthConfig,
    HostConfig, LogConfig, Mount, PortBinding, Resources, RestartPolicy, ThrottleDevice,
    TmpfsOptions, Ulimit, VolumeOptions, WeightDevice, set_of,
};
use serde_json::json;

use super::rows::{Row, Shown};

fn text() -> String {
    "x".to_owned()
}

fn texts() -> Vec<String> {
    vec![text()]
}

fn pairs() -> BTreeMap<String, String> {
    BTreeMap::from([(text(), text())])
}

pub fn every_config_field() -> ContainerConfig {
    ContainerConfig {
        hostname: text(),
        domainname: text(),
        user: text(),
        attach_stdin: true,
        attach_stdout: true,
        attach_stderr: true,
        exposed_ports: set_of([text()]),
        tty: true,
        open_stdin: true,
        stdin_once: true,
        env: texts(),
        cmd: Some(texts()),
        healthcheck: Some(HealthConfig { retries: 1, ..HealthConfig::default() }),
        args_escaped: true,
        image: text(),
        volumes: set_of([text()]),
        working_dir: text(),
        entrypoint: Some(texts()),
        network_disabled: true,
        mac_address: text(),
        on_build: texts(),
        labels: pairs(),
        stop_signal: text(),
        stop_timeout: Some(1),
        shell: Some(texts()),
    }
}

pub fn every_host_field() -> HostConfig {
    HostConfig {
        binds: texts(),
        container_id_file: text(),
        log_config: LogConfig { kind: text(), config: pairs() },
        network_mode: text(),
        port_bindings: BTreeMap::from([(text(), Some(vec![PortBinding::default()]))]),
        restart_policy: RestartPolicy { name: text(), maximum_retry_count: 1 },
        auto_remove: true,
        volume_driver: text(),
        volumes_from: texts(),
        console_size: [1, 1],
        annotations: pairs(),
        cap_add: texts(),
        cap_drop: texts(),
        cgroupns_mode: text(),
        dns: texts(),
        dns_options: texts(),
        dns_search: texts(),
        extra_hosts: texts(),
        group_add: texts(),
        ipc_mode: text(),
        links: texts(),
        oom_score_adj: 1,
        pid_mode: text(),
        privileged: true,
        publish_all_ports: true,
        readonly_rootfs: true,
        security_opt: texts(),
        tmpfs: pairs(),
        uts_mode: text(),
        userns_mode: text(),
        shm_size: 1,
        sysctls: pairs(),
        runtime: text(),
        resources: every_limit(),
        mounts: vec![every_mount_field()],
        masked_paths: Some(texts()),
        readonly_paths: Some(texts()),
        init: Some(true),
        cgroup: text(),
        storage_opt: pairs(),
        isolation: text(),
    }
}

fn every_limit() -> Resources {
    let rates = || vec![ThrottleDevice { path: text(), rate: 1 }];
    Resources {
        cpu_shares: 1,
        memory: 1,
        nano_cpus: 1,
        cgroup_parent: text(),
        cpu_period: 1,
        cpu_quota: 1,
        cpuset_cpus: text(),
        cpuset_mems: text(),
        devices: vec![DeviceMapping::default()],
        device_cgroup_rules: texts(),
        memory_reservation: 1,
        memory_swap: 1,
        memory_swappiness: Some(1),
        oom_kill_disable: Some(true),
        pids_limit: Some(1),
        ulimits: vec![Ulimit::default()],
        blkio_weight: 1,
        blkio_weight_device: vec![WeightDevice { path: text(), weight: 1 }],
        blkio_device_read_bps: rates(),
        blkio_device_write_bps: rates(),
        blkio_device_read_iops: rates(),
        blkio_device_write_iops: rates(),
        cpu_realtime_period: 1,
        cpu_realtime_runtime: 1,
        device_requests: vec![json!({})],
        kernel_memory: 1,
        kernel_memory_tcp: 1,
        cpu_count: 1,
        cpu_percent: 1,
        io_maximum_iops: 1,
        io_maximum_bandwidth: 1,
    }
}

pub fn every_mount_field() -> Mount {
    Mount {
        kind: text(),
        source: text(),
        target: text(),
        read_only: true,
        consistency: text(),
        bind_options: Some(BindOptions::default()),
        volume_options: Some(VolumeOptions::default()),
        tmpfs_options: Some(TmpfsOptions::default()),
    }
}

pub fn every_endpoint_field() -> EndpointSettings {
    EndpointSettings {
        ipam_config: Some(EndpointIpam { ipv4_address: text(), ..EndpointIpam::default() }),
        links: Some(texts()),
        aliases: Some(texts()),
        mac_address: text(),
        driver_opts: Some(pairs()),
        network_id: text(),
        endpoint_id: text(),
        gateway: text(),
        ip_address: text(),
        ip_prefix_len: 1,
        ipv6_gateway: text(),
        global_ipv6_address: text(),
        global_ipv6_prefix_len: 1,
        dns_names: Some(texts()),
    }
}

const HEAD: &str = "\
# What every field of a create request does

`POST /containers/create` takes these fields. Each has an effect that a test sees, or is refused with
status 400 and its name. Fields that are not in the table are ignored, as Docker does.

This page is written from the table in `engine/daemon/tests/it/fields/`; the test
`the_page_shows_the_table` fails when it is stale, `every_field_has_a_row` when a field has no row, and
`every_field_does_what_its_row_says` runs the rows against the engine.

| field | what it does | shown by |
|---|---|---|
";

/// The page.
pub fn render<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let mut page = HEAD.to_owned();
    for row in rows {
        let shown = match row.shown {
            Shown::Prints { probe, says, .. } => {
                format!("`{}` prints `{}`", cell(probe), cell(&says.replace('\n', " ")))
            }
            Shown::Inspect { at, says, .. } => {
                format!("inspect has `{}` at `{at}`", cell(says))
            }
            Shown::Refused(own) => format!("`{}` is refused: 400", cell(own)),
            Shown::Test(name) => format!("test `{name}`"),
        };
        page.push_str(&format!("| `{}` | {} | {shown} |\n", row.field, row.does));
    }
    page
}

/// A text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
