use super::*;

fn options() -> Options {
    Options { registry_host: "10.0.0.1:8080".to_owned(), min_poll_interval: 60_000 }
}

fn variables(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

fn device() -> Value {
    json!({
        "id": 1, "uuid": "aabb", "device_name": "quiet-dawn",
        "device_config_variable": variables(&[("BALENA_B", "device"), ("BALENA_UI_X", "1")]),
        "device_environment_variable": variables(&[("C", "device"), ("D", "device")]),
        "service_install": [
            {"installs__service": {"__id": 5}, "device_service_environment_variable": variables(&[("D", "device-service")])},
            {"installs__service": {"__id": 99}, "device_service_environment_variable": variables(&[("A", "wrong")])},
        ],
        "belongs_to__application": [{
            "id": 7, "uuid": "app1", "app_name": "weather", "is_of__class": "fleet", "is_host": false,
            "application_environment_variable": variables(&[("A", "fleet"), ("B", "fleet"), ("C", "fleet"), ("D", "fleet")]),
            "application_config_variable": variables(&[
                ("BALENA_A", "fleet"), ("BALENA_B", "fleet"), ("RESIN_SUPERVISOR_POLL_INTERVAL", "10"),
                ("RESIN_SUPERVISOR_UPDATE_STRATEGY", "kill-then-download"),
            ]),
        }],
        "should_be_running__release": [{
            "id": 9, "commit": "c0ffee",
            "composition": {"version": "2.1", "services": {"web": {"build": ".", "ports": ["80:80"]}}, "volumes": {"data": {}}},
            "release_image": [{
                "image": [{
                    "id": 4, "is_stored_at__image_location": "v2/abc", "content_hash": "sha256:00", "contract": null,
                    "is_a_build_of__service": [{
                        "id": 5, "service_name": "web",
                        "service_label": [{"label_name": "l2", "value": "service"}],
                        "service_environment_variable": variables(&[("B", "service"), ("C", "service")]),
                    }],
                }],
                "image_label": [{"label_name": "l1", "value": "image"}, {"label_name": "l2", "value": "image"}],
                "image_environment_variable": variables(&[("A", "image"), ("Z", "image")]),
            }],
        }],
        "should_be_managed_by__release": [],
    })
}

fn document(row: &Value) -> Value {
    of_device(&read_row(row).unwrap(), &options())
}

#[test]
fn variables_are_merged_from_the_general_to_the_particular() {
    let document = document(&device());
    let web = &document["aabb"]["apps"]["app1"]["releases"]["c0ffee"]["services"]["web"];
    let environment =
        json!({"A": "fleet", "B": "service", "C": "device", "D": "device-service", "Z": "image"});
    assert_eq!(web["environment"], environment);
    assert_eq!(
        web["labels"],
        json!({"l1": "image", "l2": "service", "io.resin.update.strategy": "kill-then-download"})
    );
    assert_eq!(web["image"], "10.0.0.1:8080/v2/abc@sha256:00");
    assert_eq!(web["composition"], json!({"ports": ["80:80"]}));
}

#[test]
fn configuration_keeps_the_servers_shortest_interval() {
    let document = document(&device());
    assert_eq!(
        document["aabb"]["config"],
        json!({"BALENA_A": "fleet", "BALENA_B": "device", "RESIN_SUPERVISOR_POLL_INTERVAL": "60000",
            "RESIN_SUPERVISOR_UPDATE_STRATEGY": "kill-then-download"})
    );
}

#[test]
fn a_device_is_believed_to_poll_as_it_is_told() {
    let interval = |fleet: &[(&str, &str)], device: &[(&str, &str)]| {
        let row = json!({
            "device_config_variable": variables(device),
            "belongs_to__application": [{"application_config_variable": variables(fleet)}],
        });
        poll_interval(&read_row(&row).unwrap(), &options())
    };
    let (old, new) = ("RESIN_SUPERVISOR_POLL_INTERVAL", "BALENA_SUPERVISOR_POLL_INTERVAL");
    assert_eq!(interval(&[], &[]), 900_000);
    assert_eq!(interval(&[(old, "120000")], &[]), 120_000);
    assert_eq!(interval(&[(old, "120000")], &[(old, "3600000")]), 3_600_000);
    assert_eq!(interval(&[(new, "120000")], &[(old, "3600000")]), 120_000);
    assert_eq!(interval(&[], &[(new, "1")]), 60_000, "the server's shortest");
    assert_eq!(interval(&[], &[(new, "soon")]), 900_000);
    assert_eq!(interval(&[], &[(new, "18446744073709551615")]), 2_419_200_000, "four weeks");
    let none = json!({"belongs_to__application": []});
    assert_eq!(poll_interval(&read_row(&none).unwrap(), &options()), 900_000);
}

#[test]
fn a_device_reads_what_is_written() {
    use minke_common_model::target_state::DeviceTarget;
    let body = serde_json::to_vec(&document(&device())).unwrap();
    let parsed = DeviceTarget::parse(&body, &"aabb".parse().unwrap()).unwrap();
    assert!(parsed.rejected.is_empty(), "{:?}", parsed.rejected);
    assert_eq!(parsed.device.apps["app1"].release().unwrap().0.as_str(), "c0ffee");
}

#[test]
fn without_a_release_the_app_is_there_and_empty() {
    let mut row = device();
    row["should_be_running__release"] = json!([]);
    assert_eq!(document(&row)["aabb"]["apps"]["app1"]["releases"], json!({}));
    row["belongs_to__application"] = json!([]);
    assert_eq!(document(&row)["aabb"]["apps"], json!({}));
}

#[test]
fn a_systems_app_gets_no_variables_of_the_device() {
    let mut row = device();
    let mut release = row["should_be_running__release"][0].clone();
    release["commit"] = json!("5ys");
    release["belongs_to__application"] = json!([{"id": 8, "uuid": "app2", "app_name": "supervisor",
        "is_of__class": "app", "is_host": false}]);
    row["should_be_managed_by__release"] = json!([release]);
    let document = document(&row);
    let web = &document["aabb"]["apps"]["app2"]["releases"]["5ys"]["services"]["web"];
    assert_eq!(
        web["environment"],
        json!({"A": "image", "B": "service", "C": "service", "Z": "image"})
    );
}

#[test]
fn the_queries_are_odata_and_take_no_quotes() {
    for query in [
        device_query("aabb").unwrap(),
        fleet_query("aabb", None).unwrap(),
        fleet_query("aabb", Some("c0ffee")).unwrap(),
        format!("device(uuid='aabb')?$select=id&{POLLING}"),
    ] {
        if let Err(error) = minke_common_odata::parse(&query) {
            panic!("{query}: {error}");
        }
    }
    assert!(device_query("a'b").is_none());
    assert!(device_query("").is_none());
    assert!(fleet_query("aabb", Some("x' or true")).is_none());
}

#[test]
fn the_older_form_names_apps_and_services_by_number() {
    let older = version_2(&document(&device()));
    let app = &older["local"]["apps"]["7"];
    assert_eq!(app["commit"], "c0ffee");
    assert_eq!(app["services"]["5"]["serviceName"], "web");
    assert_eq!(app["services"]["5"]["ports"], json!(["80:80"]));
    assert_eq!(app["services"]["5"]["running"], true);
    assert_eq!(older["local"]["name"], "quiet-dawn");
}
