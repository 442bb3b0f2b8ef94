//! What is read, what is left out with a warning, and what is refused with line and column.

use minke_common_compose::{Composition, parse};
use serde_json::json;

const PROJECT: &str = "\
version: '2.1'
x-common: &common
  restart: unless-stopped
  environment: { TZ: Europe/Berlin, LEVEL: 3 }
networks:
  front:
volumes:
  readings: {}
services:
  sensor:
    <<: *common
    build:
      context: ./sensor
      args: [RATE=5]
    volumes: ['readings:/data', /tmp/x, ./src:/src]
  api:
    build: api
    environment: [A=b=c, EMPTY]
    labels: { io.balena.features.supervisor-api: '1' }
    depends_on: [sensor]
    networks: { front: { aliases: [data] } }
    expose: ['80']
    container_name: x
    capAdd: [NET_ADMIN]
    mem_limit: 64m
    healthcheck: { test: [CMD, wget, localhost], interval: 1m30s, retries: 3 }
  web:
    image: nginx:1.27
    ports: ['80:8080', 443, '127.0.0.1:8000-8001:9000-9001/udp', { target: 1, published: 2 }]
    depends_on: { api: { condition: service_started } }
    command: nginx -g 'daemon off;'
    ulimits: { nofile: 1024, nproc: { soft: 1, hard: 2 } }
    read_only: true
";

#[test]
fn a_project_of_three_services() {
    let composition = parse(PROJECT).unwrap();
    let names: Vec<&str> = composition.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["sensor", "api", "web"]);
    let sensor = &composition.services[0];
    let build = sensor.build.as_ref().unwrap();
    assert_eq!((build.context.as_str(), build.args.len(), build.place), ("sensor", 1, (13, 7)));
    assert_eq!(
        sensor.environment,
        [("TZ".into(), "Europe/Berlin".into()), ("LEVEL".into(), "3".into())]
    );
    assert_eq!(
        composition.to_json(),
        json!({
            "networks": { "front": {} },
            "volumes": { "readings": {} },
            "services": {
                "sensor": {
                    "build": { "context": "sensor", "args": { "RATE": "5" } },
                    "restart": "unless-stopped",
                    "environment": { "TZ": "Europe/Berlin", "LEVEL": "3" },
                    "volumes": ["readings:/data", "/tmp/x"],
                },
                "api": {
                    "build": { "context": "api" },
                    "environment": { "A": "b=c", "EMPTY": "" },
                    "labels": { "io.balena.features.supervisor-api": "1" },
                    "depends_on": ["sensor"],
                    "networks": { "front": { "aliases": ["data"] } },
                    "cap_add": ["NET_ADMIN"],
                    "mem_limit": "64m",
                    "healthcheck": { "test": ["CMD", "wget", "localhost"], "interval": "1m30s", "retries": 3 },
                },
                "web": {
                    "image": "nginx:1.27",
                    "ports": ["80:8080", "443", "127.0.0.1:8000-8001:9000-9001/udp", "2:1"],
                    "depends_on": ["api"],
                    "command": "nginx -g 'daemon off;'",
                    "ulimits": { "nofile": 1024, "nproc": { "soft": 1, "hard": 2 } },
                    "read_only": true,
                },
            },
        })
    );
    let warnings: Vec<String> = composition.warnings.iter().map(|w| w.to_string()).collect();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    assert!(
        warnings[0].contains("line 15, column 41: the bind mount `./src:/src`"),
        "{}",
        warnings[0]
    );
    assert!(warnings[1].contains("`EMPTY` in `environment` has no value"));
    assert!(warnings[2].contains("`container_name` is not supported"));
}

#[test]
fn a_lone_dockerfile_gets_balenas_default() {
    assert_eq!(
        Composition::for_dockerfile().to_json(),
        json!({
            "networks": {},
            "volumes": { "resin-data": {} },
            "services": { "main": {
                "privileged": true,
                "tty": true,
                "restart": "always",
                "network_mode": "host",
                "volumes": ["resin-data:/data"],
                "labels": {
                    "io.resin.features.kernel-modules": "1",
                    "io.resin.features.firmware": "1",
                    "io.resin.features.dbus": "1",
                    "io.resin.features.supervisor-api": "1",
                    "io.resin.features.resin-api": "1",
                },
                "build": { "context": "." },
            } },
        })
    );
}

#[test]
fn errors_name_line_column_and_expectation() {
    for (text, line, column, says) in [
        ("", 1, 1, "expected `services:`"),
        ("services: [", 2, 1, "not YAML"),
        ("version: '2'\n", 1, 1, "expected `services:`"),
        ("- a", 1, 1, "expected a mapping with `services`"),
        ("services: {}", 1, 11, "at least one"),
        ("services:\n  a:\n    restart: always", 2, 3, "neither `build` nor `image`"),
        ("services:\n  a b:\n    image: x", 2, 3, "cannot name a service"),
        ("services:\n  a: { image: x }\n  a: { image: y }", 3, 3, "given twice"),
        ("services:\n  a: { build: 7z/../../up }", 2, 15, "`7z/../../up` leads outside"),
        ("services:\n  a:\n    build:\n      context: /etc", 4, 16, "`/etc` leads outside"),
        (
            "services:\n  a:\n    build:\n      context: a\n      dockerfile: ../../D",
            5,
            19,
            "leads outside",
        ),
        ("services:\n  a: { build: 'https://x/y' }", 2, 15, "is a URL"),
        ("services:\n  a:\n    build: { args: {} }", 3, 12, "expected `context: path`"),
        ("services:\n  a:\n    image: x\n    ports: ['99999']", 4, 13, "such as \"80:8080\""),
        ("services:\n  a:\n    image: x\n    ports: ['1-3:1-2']", 4, 13, "differ in length"),
        (
            "services:\n  a:\n    image: x\n    ports: ['1-4096', '1:1/udp']",
            4,
            23,
            "more than 4096 ports",
        ),
        ("services:\n  a:\n    image: x\n    volumes: ['v:/x']", 4, 15, "`v` is not defined"),
        ("services:\n  a:\n    image: x\n    networks: [n]", 4, 16, "`n` is not defined"),
        ("services:\n  a:\n    image: x\n    privileged: maybe", 4, 17, "true or false"),
        ("services:\n  a:\n    image: x\n    mem_limit: lots", 4, 16, "such as 64m"),
        ("services:\n  a:\n    image: x\n    depends_on: [b]", 4, 18, "`b` does not exist"),
        ("services:\n  a:\n    image: x\n    network_mode: service:b", 4, 19, "`b` does not exist"),
        ("services:\n  a:\n    image: x\n    environment: text", 4, 18, "a list of `key=value`"),
        ("services:\n  a:\n    image: x\n    healthcheck: { tst: x }", 4, 20, "expected test"),
        ("services:\n  a:\n    image: x\n    extends: b", 4, 5, "not supported"),
        (
            "services:\n  a: { image: x, depends_on: [b] }\n  b: { image: x, depends_on: [a] }",
            2,
            3,
            "a → b → a",
        ),
        ("services:\n  a:\n    image: [x]", 3, 12, "expected text"),
        ("---\nservices: {a: {image: x}}\n---\n", 3, 1, "second document"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.message.contains(says), "{text:?}: {error}");
        assert_eq!((error.line, error.column), (line, column), "{text:?}: {error}");
    }
}

#[test]
fn aliases_cannot_make_a_small_file_large() {
    let mut text = String::from("x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n");
    for i in 1..12 {
        let inner = format!("*x{}, ", i - 1).repeat(10);
        text.push_str(&format!("x{i}: &x{i} [{inner}]\n"));
    }
    assert!(parse(&text).unwrap_err().message.contains("20000"));
    let deep = "[".repeat(64) + &"]".repeat(64);
    assert!(parse(&deep).unwrap_err().message.contains("deeper than 32"));
    let long = format!("services:\n  a:\n    image: x # {}", "x".repeat(300_000));
    assert!(parse(&long).unwrap_err().message.contains("262144"));
    let many: String = (0..101).map(|i| format!("  s{i}: {{ image: x }}\n")).collect();
    assert!(parse(&format!("services:\n{many}")).unwrap_err().message.contains("the limit is 100"));
}

#[test]
fn variables_stay_and_are_warned_of() {
    let composition = parse("services:\n  a:\n    image: x:${TAG}\n").unwrap();
    assert_eq!(composition.services[0].image.as_deref(), Some("x:${TAG}"));
    assert!(composition.warnings[0].message.contains("not substituted"));
}

#[test]
fn restart_policies_fall_back_to_always() {
    for (given, kept, warned) in [
        ("no", "no", false),
        ("'no'", "no", false),
        ("unless-stopped", "unless-stopped", false),
        ("on-failure:3", "on-failure", true),
        ("sometimes", "always", true),
    ] {
        let composition =
            parse(&format!("services:\n  a: {{ image: x, restart: {given} }}\n")).unwrap();
        assert_eq!(composition.services[0].fields["restart"], json!(kept), "{given}");
        assert_eq!(!composition.warnings.is_empty(), warned, "{given}");
    }
}

#[test]
fn as_many_ports_as_the_limit_says_may_be_published() {
    let text = "services:\n  a:\n    image: x\n    ports: ['1-4095', '1:1/udp']";
    assert!(parse(text).is_ok());
}
