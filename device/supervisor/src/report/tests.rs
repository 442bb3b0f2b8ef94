use std::sync::Arc;

use minke_common_model::ids::{AppId, ServiceId};
use serde_json::json;

use super::*;
use crate::plan::Plan;
use crate::plan::tests::{app_uuid, service, service_name, target, target_app};
use crate::state::{ContainerId, ImageKey, LocalImage, Observed, ObservedImage, SpecHash, Target};

const BODY: &str = r#"{"aabb":{"name":"d","config":{},"apps":{"app1":{"id":1,"name":"a","releases":{"c2":{"id":2,
    "services":{"web":{"id":1,"image_id":5,"image":"host/v2:1"}}}}}}}}"#;

fn device() -> DeviceTarget {
    DeviceTarget::parse(BODY.as_bytes(), &"aabb".parse().unwrap()).unwrap().device
}

fn wanted() -> Target {
    let mut target = target(vec![target_app(1, 2, vec![("web", service("v2", 1))])]);
    for app in target.apps.values_mut() {
        for service in app.services.values_mut() {
            service.container_name = "web_5_2_c2".into();
        }
    }
    target
}

fn container(name: &str, hash: &str, image: &str, status: ContainerStatus) -> ObservedContainer {
    ObservedContainer {
        app: app_uuid(1),
        app_id: AppId::new(1),
        service: service_name("web"),
        service_id: Some(ServiceId::new(1)),
        hash: Some(SpecHash(hash.into())),
        image: LocalImage(image.into()),
        name: name.into(),
        status,
        created: 0,
        networks: BTreeSet::new(),
        network_of: None,
        must_go: false,
        was_stopped: false,
        has_taken_over: false,
    }
}

fn report(observed: Observed, progress: u8, applied: &mut Applied) -> AppReport {
    let target = wanted();
    let plan: Plan = crate::plan::plan(&observed, &target);
    let status = Status {
        target: Some(Arc::new(target)),
        observed: Arc::new(observed),
        plan: Arc::new(plan),
        ..Status::default()
    };
    note_applied(&status, applied);
    let progress = Progress::from([(ImageKey("v2".into()), progress)]);
    let view = View {
        device: &device(),
        rejected: &BTreeSet::new(),
        status: &status,
        progress: &progress,
        applied,
    };
    view.apps().remove("app1").unwrap()
}

fn image(key: &str) -> (LocalImage, ObservedImage) {
    let image = ObservedImage {
        keys: BTreeSet::from([ImageKey(key.into())]),
        references: BTreeSet::from([format!("host/v2/{key}")]),
        is_ours: true,
    };
    (LocalImage(key.into()), image)
}

#[test]
fn an_update_is_told_from_the_download_to_the_end() {
    let running = ContainerStatus::Running { is_healthy: true };
    let mut observed = Observed::default();
    observed.images.extend([image("v1")]);
    let old = container("web_4_1_c1", "v1 1", "v1", running);
    observed.containers.insert(ContainerId("old".into()), old);
    let mut applied = Applied::new();

    let downloading = serde_json::to_value(report(observed.clone(), 40, &mut applied)).unwrap();
    let expected = json!({"release_uuid": "c1", "releases": {
        "c1": {"services": {"web": {"image": "host/v2/v1", "status": "Running"}}},
        "c2": {"update_status": "downloading", "services": {"web": {"image": "host/v2:1", "status": "Downloading", "download_progress": 40.0}}},
    }});
    assert_eq!(downloading, expected);

    observed.images.extend([image("v2")]);
    let applying = report(observed.clone(), 100, &mut applied);
    let release = &applying.releases["c2"];
    assert_eq!(release.update_status, Some(UpdateStatus::ApplyingChanges));
    assert_eq!(release.services["web"].status, "Downloaded");

    observed.containers.clear();
    let new = container("web_5_2_c2", "v2 1", "v2", running);
    observed.containers.insert(ContainerId("new".into()), new);
    let done = report(observed, 0, &mut applied);
    assert_eq!(done.release_uuid.unwrap().as_str(), "c2");
    assert_eq!(done.releases.len(), 1);
    assert_eq!(done.releases["c2"].update_status, Some(UpdateStatus::Done));
    assert_eq!(done.releases["c2"].services["web"].status, "Running");
}

#[test]
fn what_was_true_of_the_last_release_is_not_said_of_the_next() {
    // The loop has settled on `c1` and has not looked at the device for `c2` yet.
    let mut target = target(vec![target_app(1, 1, vec![("web", service("v1", 1))])]);
    for app in target.apps.values_mut() {
        app.services.values_mut().for_each(|service| service.container_name = "web_4_1_c1".into());
    }
    let mut observed = Observed::default();
    observed.images.extend([image("v1")]);
    let running = ContainerStatus::Running { is_healthy: true };
    let web = container("web_4_1_c1", "v1 1", "v1", running);
    observed.containers.insert(ContainerId("web".into()), web);
    assert!(crate::plan::plan(&observed, &target).is_converged());
    let status = Status {
        target: Some(Arc::new(target)),
        observed: Arc::new(observed),
        ..Status::default()
    };
    let mut applied = Applied::new();
    note_applied(&status, &mut applied);
    let view = View {
        device: &device(),
        rejected: &BTreeSet::new(),
        status: &status,
        progress: &Progress::new(),
        applied: &applied,
    };
    let report = serde_json::to_value(view.apps().remove("app1").unwrap()).unwrap();
    let expected = json!({"release_uuid": "c1", "releases": {
        "c1": {"services": {"web": {"image": "host/v2/v1", "status": "Running"}}},
        "c2": {"update_status": "downloading", "services": {"web": {"image": "host/v2:1", "status": "Downloading", "download_progress": 0.0}}},
    }});
    assert_eq!(report, expected);
}

#[test]
fn a_lock_shows_as_downloaded() {
    let mut observed = Observed::default();
    observed.images.extend([image("v1"), image("v2")]);
    let running = ContainerStatus::Running { is_healthy: true };
    let old = container("web_4_1_c1", "v1 1", "v1", running);
    observed.containers.insert(ContainerId("old".into()), old);
    observed.locks.insert(app_uuid(1), crate::state::Locks::Theirs);
    let report = report(observed, 0, &mut Applied::new());
    assert_eq!(report.releases["c2"].update_status, Some(UpdateStatus::Downloaded));
}

#[test]
fn a_commit_is_read_from_a_name_that_has_underscores() {
    assert_eq!(commit_of("my_web_5_2_c2").unwrap().as_str(), "c2");
    assert_eq!(commit_of("my_web"), None);
    assert_eq!(commit_of("old_abc"), None);
}
