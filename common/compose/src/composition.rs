//! What a compose file says, checked.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::build::Build;
use crate::error::Warning;
use crate::shapes;

/// One service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its key in the file.
    pub name: String,
    /// Line and column of that key.
    pub place: (usize, usize),
    /// What to build, unless an image is used as it is.
    pub build: Option<Build>,
    /// An image to use, or the name for what is built.
    pub image: Option<String>,
    /// Services that must have been started before this one.
    pub depends_on: Vec<String>,
    /// Environment, in the order of the file.
    pub environment: Vec<(String, String)>,
    /// Labels, in the order of the file.
    pub labels: Vec<(String, String)>,
    /// Every other key, in snake case.
    pub fields: Map<String, Json>,
}

impl Service {
    pub(crate) fn new(name: &str, place: (usize, usize)) -> Service {
        Service {
            name: name.to_owned(),
            place,
            build: None,
            image: None,
            depends_on: Vec::new(),
            environment: Vec::new(),
            labels: Vec::new(),
            fields: Map::new(),
        }
    }

    fn to_json(&self) -> Json {
        let mut out = self.fields.clone();
        if let Some(build) = &self.build {
            out.insert("build".into(), build.to_json());
        }
        if let Some(image) = &self.image {
            out.insert("image".into(), json!(image));
        }
        if !self.depends_on.is_empty() {
            out.insert("depends_on".into(), json!(self.depends_on));
        }
        if !self.environment.is_empty() {
            out.insert("environment".into(), shapes::object(self.environment.clone()));
        }
        if !self.labels.is_empty() {
            out.insert("labels".into(), shapes::object(self.labels.clone()));
        }
        Json::Object(out)
    }
}

/// A whole file.
#[derive(Debug, Clone, PartialEq)]
pub struct Composition {
    /// Services, in the order of the file.
    pub services: Vec<Service>,
    /// Network definitions.
    pub networks: BTreeMap<String, Json>,
    /// Volume definitions.
    pub volumes: BTreeMap<String, Json>,
    /// What devices will not do as written.
    pub warnings: Vec<Warning>,
}

impl Composition {
    /// What balena makes of a project that is one Dockerfile: a service `main` with the host's
    /// network, all rights, and `/data` on a volume.
    pub fn for_dockerfile() -> Composition {
        let mut main = Service::new("main", (1, 1));
        main.build = Some(Build { place: (1, 1), ..Build::default() });
        let fields = json!({
            "privileged": true,
            "tty": true,
            "restart": "always",
            "network_mode": "host",
            "volumes": ["resin-data:/data"],
        });
        if let Json::Object(fields) = fields {
            main.fields = fields;
        }
        for feature in ["kernel-modules", "firmware", "dbus", "supervisor-api", "resin-api"] {
            main.labels.push((format!("io.resin.features.{feature}"), "1".into()));
        }
        Composition {
            services: vec![main],
            networks: BTreeMap::new(),
            volumes: BTreeMap::from([("resin-data".to_owned(), json!({}))]),
            warnings: Vec::new(),
        }
    }

    /// The composition a release stores.
    pub fn to_json(&self) -> Json {
        let services = self.services.iter().map(|s| (s.name.clone(), s.to_json()));
        json!({
            "networks": self.networks,
            "volumes": self.volumes,
            "services": services.collect::<Map<_, _>>(),
        })
    }
}
