use std::collections::BTreeSet;

use minke_common_model::ids::DeviceUuid;
use minke_common_model::target_state::DeviceTarget;
use serde_json::{Value, json};

use super::target::Built;
use super::*;
use crate::api_keys::ApiKeys;
use crate::state::{Condition, TargetService};

pub(crate) fn facts(dir: &std::path::Path) -> Facts {
    Facts {
        uuid: "aabb".parse().unwrap(),
        name: "quiet-dawn".into(),
        device_type: "qemux86-64".into(),
        arch: "amd64".into(),
        os_version: "Test 1".into(),
        api_endpoint: Some("http://10.0.0.1".into()),
        device_key: Some("key".into()),
        listen_port: 48484,
        supervisor_gateway: SUPERVISOR_GATEWAY,
        lock_root: "/tmp/balena-supervisor".into(),
        engine_socket: "/run/engine.sock".into(),
        host_paths: BTreeSet::from(["/lib/modules".into(), "/sys".into()]),
        api_keys: ApiKeys::open(&dir.join("api-key")).unwrap(),
    }
}

pub(crate) fn built(
    services: Value,
    networks: Value,
    volumes: Value,
    change: &[(&str, &str)],
) -> Built {
    let dir = tempfile::tempdir().unwrap();
    let uuid: DeviceUuid = "aabb".parse().unwrap();
    let mut body = json!({"aabb": {"name": "d", "config": {}, "apps": {"app1": {"id": 7, "name": "weather",
        "releases": {"c0ffee": {"id": 9, "services": services, "networks": networks, "volumes": volumes}}}}}})
    .to_string();
    for (from, to) in change {
        body = body.replace(from, to);
    }
    let parsed = DeviceTarget::parse(body.as_bytes(), &uuid).unwrap();
    assert!(parsed.rejected.is_empty(), "{:?}", parsed.rejected);
    build_target(&facts(dir.path()), &parsed.device)
}

fn service(composition: Value) -> Value {
    json!({"id": 1, "image_id": 2, "image": "10.0.0.1:80/v2/ab@sha256:12", "environment": {"A": "1"},
        "labels": {}, "composition": composition})
}

fn web(composition: Value) -> (TargetService, Built) {
    let built = built(json!({"web": service(composition)}), json!({}), json!({"data": {}}), &[]);
    assert!(built.rejected.is_empty(), "{:?}", built.rejected);
    let service = built.target.apps["app1"].services["web"].clone();
    (service, built)
}

#[test]
fn names_and_labels_are_balenas() {
    let (service, built) = web(json!({"volumes": ["data:/data:ro"]}));
    assert_eq!(service.container_name, "web_2_9_c0ffee");
    let labels = &service.body.config.labels;
    assert_eq!(labels["io.balena.app-id"], "7");
    assert_eq!(labels["io.balena.app-uuid"], "app1");
    assert_eq!(labels["io.balena.service-name"], "web");
    assert_eq!(labels["io.balena.service-id"], "1");
    assert_eq!(labels["io.balena.supervised"], "true");
    let app = &built.target.apps["app1"];
    assert_eq!(app.networks.keys().collect::<Vec<_>>(), ["app1_default"]);
    assert_eq!(app.volumes.keys().collect::<Vec<_>>(), ["7_data"]);
    assert!(service.body.host_config.binds.contains(&"7_data:/data:ro".to_owned()));
    let locks = "/tmp/balena-supervisor/services/7/web:/tmp/balena".to_owned();
    assert!(service.body.host_config.binds.contains(&locks));
}

#[test]
fn defaults_are_balenas() {
    let (service, _) = web(json!({}));
    let host = &service.body.host_config;
    assert_eq!(host.restart_policy.name, "always");
    assert_eq!(host.ipc_mode, "shareable");
    assert_eq!(host.shm_size, 64 << 20);
    assert_eq!(host.network_mode, "app1_default");
    assert!(service.body.config.tty);
    assert!(service.body.config.env.contains(&"BALENA_SERVICE_NAME=web".to_owned()));
    assert!(service.body.config.env.contains(&"RESIN_DEVICE_UUID=aabb".to_owned()));
    assert!(service.body.config.env.contains(&"A=1".to_owned()));
}

#[test]
fn every_field_of_compose_arrives() {
    let (service, built) = web(json!({
        "command": "serve --name 'a b' \"c\\\"d\"", "entrypoint": ["/init"], "environment": ["B=2", "A=0"],
        "ports": ["80:8080", "127.0.0.1:5000-5001:6000-6001/udp", 9000, {"target": 70, "published": "7070"}],
        "cap_add": ["NET_ADMIN"], "mem_limit": "64m", "cpus": "0.5", "pids_limit": 100, "privileged": true,
        "devices": ["/dev/null:/dev/x:r", "/dev/zero"], "ulimits": {"nofile": {"soft": 1, "hard": 2}, "nproc": 5},
        "sysctls": {"net.core.somaxconn": 1}, "tmpfs": "/run", "stop_grace_period": "1m30s", "restart": false,
        "extra_hosts": ["a=1.2.3.4", "b:5.6.7.8"], "read_only": true, "working_dir": "/w", "user": 1000, "tty": false,
        "healthcheck": {"test": "true", "interval": "10s", "retries": 3}, "depends_on": [], "init": true,
        "volumes": ["data:/d", "/anonymous", {"type": "tmpfs", "target": "/t", "tmpfs": {"size": 65536}}],
    }));
    assert!(built.warnings.is_empty(), "{:?}", built.warnings);
    let (config, host) = (&service.body.config, &service.body.host_config);
    assert_eq!(config.cmd.as_deref().unwrap(), ["serve", "--name", "a b", "c\"d"]);
    assert_eq!(config.entrypoint.as_deref().unwrap(), ["/init"]);
    assert!(config.env.contains(&"B=2".into()) && config.env.contains(&"A=1".into()));
    let port = |key: &str| host.port_bindings[key].as_ref().unwrap()[0].clone();
    assert_eq!(port("8080/tcp").host_port, "80");
    assert_eq!(
        (port("6001/udp").host_ip, port("6001/udp").host_port),
        ("127.0.0.1".into(), "5001".into())
    );
    assert_eq!(port("9000/tcp").host_port, "9000");
    assert_eq!(port("70/tcp").host_port, "7070");
    assert!(config.exposed_ports.contains_key("8080/tcp"));
    assert_eq!(host.resources.memory, 64 << 20);
    assert_eq!(host.resources.nano_cpus, 500_000_000);
    assert_eq!(host.resources.devices[0].cgroup_permissions, "r");
    assert_eq!(host.resources.devices[1].path_in_container, "/dev/zero");
    assert_eq!(host.resources.ulimits[0].hard, 2);
    assert_eq!(config.stop_timeout, Some(90));
    assert_eq!(host.restart_policy.name, "no");
    assert_eq!(host.extra_hosts, ["a:1.2.3.4", "b:5.6.7.8"]);
    assert_eq!((config.user.as_str(), config.tty, host.init), ("1000", false, Some(true)));
    let health = config.healthcheck.as_ref().unwrap();
    assert_eq!((health.test[0].as_str(), health.interval), ("CMD-SHELL", 10_000_000_000));
    assert_eq!(host.tmpfs["/t"], "size=65536");
    assert!(config.volumes.contains_key("/anonymous"));
}

#[test]
fn a_path_of_the_host_is_not_mounted_and_that_is_said() {
    let (service, built) = web(
        json!({"volumes": ["/etc:/etc", "../x:/x", {"type": "bind", "source": "/", "target": "/h"}]}),
    );
    assert_eq!(built.warnings.len(), 3);
    let binds = &service.body.host_config.binds;
    assert!(binds.iter().all(|bind| bind.starts_with("/tmp/balena-supervisor/")), "{binds:?}");
}

#[test]
fn nonsense_is_left_out_with_a_warning_and_the_rest_runs() {
    let (service, built) = web(
        json!({"ports": ["x", "80:70-71", "1-65000:1-65000", "81:81"], "restart": "sometimes", "network_mode": "container:x"}),
    );
    assert_eq!(built.warnings.len(), 5, "{:?}", built.warnings);
    assert_eq!(service.body.host_config.port_bindings.len(), 1);
    assert_eq!(fields::split_words("a  'b c'\\ d"), ["a", "b c d"]);
}

#[test]
fn processes_of_another_service_are_not_shared_and_that_is_said() {
    let (service, built) = web(json!({"pid": "service:db", "ipc": "service:db"}));
    assert_eq!(built.warnings.len(), 2, "{:?}", built.warnings);
    let host = &service.body.host_config;
    assert_eq!((host.pid_mode.as_str(), host.ipc_mode.as_str()), ("", "shareable"));
    let (service, built) = web(json!({"pid": "host", "ipc": "host"}));
    assert!(built.warnings.is_empty(), "{:?}", built.warnings);
    let host = &service.body.host_config;
    assert_eq!((host.pid_mode.as_str(), host.ipc_mode.as_str()), ("host", "host"));
}

#[test]
fn ports_beyond_the_limit_are_left_out_with_one_warning() {
    let range = |number: u16| format!("127.0.0.{number}:1-1024:1-1024");
    let (service, built) = web(json!({"ports": (1..=4).map(range).collect::<Vec<_>>()}));
    assert!(built.warnings.is_empty(), "{:?}", built.warnings);
    let count = |service: &TargetService| -> usize {
        service.body.host_config.port_bindings.values().flatten().map(Vec::len).sum()
    };
    assert_eq!(count(&service), 4096);
    let (service, built) = web(json!({"ports": (1..=200).map(range).collect::<Vec<_>>()}));
    assert_eq!(count(&service), 4096);
    assert_eq!(built.warnings.len(), 1, "{:?}", built.warnings);
    assert!(built.warnings[0].contains("4096"), "{:?}", built.warnings);
    let (_, built) = web(json!({"ports": vec!["x"; 10_000]}));
    assert_eq!(built.warnings.len(), 4097);
}

#[test]
fn labels_open_parts_of_the_host_that_exist() {
    let (service, built) = web(json!({"labels": {"io.balena.features.kernel-modules": "1",
        "io.resin.features.dbus": "1", "io.balena.features.supervisor-api": "1", "io.balena.features.balena-socket": "1"}}));
    let binds = &service.body.host_config.binds;
    assert!(binds.contains(&"/lib/modules:/lib/modules".to_owned()));
    assert!(!binds.iter().any(|bind| bind.contains("dbus")), "the host has none");
    assert!(binds.contains(&"/run/engine.sock:/var/run/balena.sock".to_owned()));
    let env = &service.body.config.env;
    assert!(env.contains(&"BALENA_SUPERVISOR_ADDRESS=http://10.114.104.1:48484".to_owned()));
    assert!(env.iter().any(|entry| entry.starts_with("RESIN_SUPERVISOR_API_KEY=7_web_")));
    assert!(service.networks.contains("supervisor0"));
    assert!(built.target.system_networks.contains_key("supervisor0"));
}

fn hash(change: &[(&str, &str)]) -> String {
    let services = json!({"web": service(json!({"networks": ["net"], "command": "run"}))});
    let built = built(services, json!({"net": {"driver_opts": {"a": "1"}}}), json!({}), change);
    built.target.apps["app1"].services["web"].hash.0.clone()
}

#[test]
fn a_container_is_made_anew_for_what_it_is_and_not_for_whose_it_is() {
    let same = hash(&[]);
    for (what, change) in [
        ("the server moved", ("10.0.0.1:80/v2/ab", "fleet.example/v2/ab")),
        ("an image row of the same content", ("v2/ab@", "v2/cd@")),
        ("a new release", ("c0ffee", "beef")),
        ("the device was renamed", ("\"name\":\"d\"", "\"name\":\"e\"")),
        ("the app was renamed", ("weather", "climate")),
    ] {
        assert_eq!(hash(&[change]), same, "{what}");
    }
    for (what, change) in [
        ("another image", ("sha256:12", "sha256:13")),
        ("another variable", ("\"A\":\"1\"", "\"A\":\"2\"")),
        ("another command", ("run", "walk")),
        ("another network", ("\"a\":\"1\"", "\"a\":\"2\"")),
    ] {
        assert_ne!(hash(&[change]), same, "{what}");
    }
}

#[test]
fn dependencies_have_conditions_and_no_cycles() {
    let of = |a: Value, b: Value| {
        built(json!({"a": service(a), "b": service(b)}), json!({}), json!({}), &[])
    };
    let good = of(json!({"depends_on": {"b": {"condition": "service_healthy"}}}), json!({}));
    let on = &good.target.apps["app1"].services["a"].depends_on;
    assert_eq!(on.values().collect::<Vec<_>>(), [&Condition::Healthy]);
    let cycle = of(json!({"depends_on": ["b"]}), json!({"network_mode": "service:a"}));
    assert!(cycle.rejected["app1"].contains("needs itself"), "{:?}", cycle.rejected);
    assert!(cycle.target.untouched.contains("app1"), "what runs goes on");
    let missing = of(json!({"depends_on": ["c"]}), json!({}));
    assert!(missing.rejected["app1"].contains("not there"));
}

#[test]
fn a_shared_namespace_is_remade_with_its_host() {
    let of = |command: &str| {
        let services = json!({"a": service(json!({"command": command})), "b": service(json!({"network_mode": "service:a"}))});
        let built = built(services, json!({}), json!({}), &[]);
        let b = built.target.apps["app1"].services["b"].clone();
        assert_eq!(b.body.config.labels["io.minke.config"], b.hash.0);
        b.hash
    };
    assert_ne!(of("one"), of("two"));
    assert_eq!(of("one"), of("one"));
}
