//! What kind of project was pushed, and what has to be built for each service.
//!
//! Everything that can be wrong with a project's own files is found here, before a release exists.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use minke_common_compose::{Build, Composition};
use minke_common_dockerfile::project::{Target, candidates, is_template, project_type};
use minke_common_dockerfile::{Dockerfile, parse};
use minke_common_model::semver::Semver;
use serde_json::Value;

use crate::ports::Fleet;

/// Longest text file of a project that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;
const COMPOSE_FILES: [&str; 4] =
    ["docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml"];

/// Why a project cannot be built; the text is for its author.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// None of the files that make a project.
    #[error(
        "no project found: expected docker-compose.yml, or one of {0} at the top of what is pushed"
    )]
    NoProject(String),
    /// A directory without a Dockerfile.
    #[error("{place}: no Dockerfile in `{directory}`: expected one of {expected}")]
    NoDockerfile {
        /// File, line and column that asks for it.
        place: String,
        /// Where it was looked for.
        directory: String,
        /// Names that would do.
        expected: String,
    },
    /// A file that cannot be understood; `file: line L, column C: …`.
    #[error("{file}: {message}")]
    Invalid {
        /// The file.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// A path that leaves the project.
    #[error("the path `{0}` leads outside the project")]
    Outside(String),
    /// A file that is not there or cannot be read.
    #[error("cannot read `{path}`")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// More services than the fleet's type allows.
    #[error("the fleet takes one service, but the project has {0}")]
    Multicontainer(usize),
    /// `--target` of a stage that is not there.
    #[error("{file}: the stage `{stage}` does not exist; expected one of {known}")]
    NoStage {
        /// The Dockerfile.
        file: String,
        /// What was asked for.
        stage: String,
        /// Stages with names.
        known: String,
    },
}

/// A service with everything needed to build it.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub name: String,
    pub source: Source,
    pub labels: Vec<(String, String)>,
    pub environment: Vec<(String, String)>,
}

/// Where a service's image comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Pulled as it is.
    Image(String),
    /// Built.
    Build(Box<Recipe>),
}

/// A build.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub build: Build,
    /// Directory of the context, inside the unpacked project.
    pub context: PathBuf,
    /// Path from the project's root, for messages.
    pub file: String,
    /// The Dockerfile's place in the context, if it is in it.
    pub inside: Option<String>,
    /// The context's `.dockerignore`, where the Dockerfile is not in the context: then what it
    /// leaves out grows by that.
    pub ignore: Option<String>,
    /// The Dockerfile with template variables filled in.
    pub text: String,
    pub parsed: Dockerfile,
    pub project_type: &'static str,
}

/// A checked project.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    pub kind: &'static str,
    pub composition: Composition,
    pub services: Vec<Planned>,
    pub contract: Option<Value>,
    pub semver: Option<String>,
    pub warnings: Vec<String>,
}

/// What the caller asked for beside the files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// `dockerfilePath` of the request.
    pub dockerfile: String,
    /// The release's commit, for templates.
    pub commit: String,
}

/// Reads and checks the project in `root`.
pub(crate) fn read(root: &Path, fleet: &Fleet, wishes: &Wishes) -> Result<Project, ProjectError> {
    let (mut composition, compose_file) = composition(root, fleet, wishes)?;
    if !fleet.multicontainer && composition.services.len() > 1 {
        return Err(ProjectError::Multicontainer(composition.services.len()));
    }
    let kind = if compose_file.is_some() { "Docker Compose" } else { "Dockerfile" };
    let file = compose_file.unwrap_or("the default composition");
    let mut warnings: Vec<String> =
        composition.warnings.iter().map(|w| format!("{file}: {w}")).collect();
    let (contract, semver) = contract(root, &mut warnings)?;
    if let (None, Some(build)) =
        (compose_file, composition.services.first_mut().and_then(|s| s.build.as_mut()))
        && !wishes.dockerfile.is_empty()
    {
        build.dockerfile = Some(wishes.dockerfile.clone());
    }
    let mut services = Vec::new();
    for service in &composition.services {
        let source = match (&service.build, &service.image) {
            (Some(build), _) => {
                let target = Target {
                    architecture: fleet.architecture.clone(),
                    device_type: fleet.device_type.clone(),
                    app_name: fleet.name.clone(),
                    release: wishes.commit.clone(),
                    service: service.name.clone(),
                };
                let recipe = recipe(root, file, build, &target)?;
                let notes = recipe.parsed.warnings.iter();
                warnings.extend(notes.map(|w| {
                    format!("{}: line {}, column {}: {}", recipe.file, w.line, w.column, w.message)
                }));
                Source::Build(Box::new(recipe))
            }
            (None, image) => Source::Image(image.clone().unwrap_or_default()),
        };
        services.push(Planned {
            name: service.name.clone(),
            source,
            labels: service.labels.clone(),
            environment: service.environment.clone(),
        });
    }
    Ok(Project { kind, composition, services, contract, semver, warnings })
}

fn composition(
    root: &Path,
    fleet: &Fleet,
    wishes: &Wishes,
) -> Result<(Composition, Option<&'static str>), ProjectError> {
    for name in COMPOSE_FILES {
        if let Some(text) = optional_text(root, name)? {
            let composition = minke_common_compose::parse(&text).map_err(|e| {
                ProjectError::Invalid { file: name.to_owned(), message: e.to_string() }
            })?;
            return Ok((composition, Some(name)));
        }
    }
    let names = candidates(&fleet.device_type, &fleet.architecture);
    let found = names.iter().any(|name| root.join(name).exists());
    if !found && wishes.dockerfile.is_empty() {
        return Err(ProjectError::NoProject(names.join(", ")));
    }
    Ok((Composition::for_dockerfile(), None))
}

fn recipe(
    root: &Path,
    asked_by: &str,
    build: &Build,
    target: &Target,
) -> Result<Recipe, ProjectError> {
    let context = inside(root, &build.context)?;
    let shown = if build.context.is_empty() { "." } else { &build.context };
    let names = candidates(&target.device_type, &target.architecture);
    let place = || {
        let (line, column) = build.place;
        format!("{asked_by}: line {line}, column {column}")
    };
    let missing = |expected: String| ProjectError::NoDockerfile {
        place: place(),
        directory: shown.to_owned(),
        expected,
    };
    if !context.is_dir() {
        return Err(ProjectError::Invalid {
            file: asked_by.to_owned(),
            message: format!(
                "line {}, column {}: the context `{shown}` is no directory of the project",
                build.place.0, build.place.1
            ),
        });
    }
    let file = match (&build.dockerfile, &build.dockerfile_inline) {
        (_, Some(_)) => "dockerfile_inline".to_owned(),
        (Some(file), None) => file.clone(),
        (None, None) => {
            let name = names.iter().find(|name| context.join(name).exists());
            let name = name.ok_or_else(|| missing(names.join(", ")))?;
            join(&build.context, name)
        }
    };
    let raw = match &build.dockerfile_inline {
        Some(text) => text.clone(),
        None => optional_text(root, &file)?.ok_or_else(|| missing(file.clone()))?,
    };
    let invalid = |message: String| ProjectError::Invalid { file: file.clone(), message };
    let text = match is_template(&file) {
        true => target.fill(&raw).map_err(|e| invalid(e.to_string()))?,
        false => raw,
    };
    let parsed = parse(&text).map_err(|e| invalid(e.to_string()))?;
    check_target(&file, build, &parsed)?;
    let inside = in_context(build, &file);
    let ignore = match inside {
        Some(_) => None,
        None => optional_text(root, &join(&build.context, ".dockerignore"))?,
    };
    let project_type = project_type(&file);
    Ok(Recipe { build: build.clone(), context, file, inside, ignore, text, parsed, project_type })
}

/// Where a Dockerfile stands in its context, if it does.
fn in_context(build: &Build, file: &str) -> Option<String> {
    let inside = match build.context.as_str() {
        "" => Some(file),
        context => file.strip_prefix(context).and_then(|rest| rest.strip_prefix('/')),
    };
    inside.filter(|_| build.dockerfile_inline.is_none()).map(str::to_owned)
}

fn check_target(file: &str, build: &Build, parsed: &Dockerfile) -> Result<(), ProjectError> {
    let Some(stage) = &build.target else { return Ok(()) };
    let names: Vec<&str> = parsed.stages.iter().filter_map(|s| s.from.name.as_deref()).collect();
    let number = stage.parse::<usize>().is_ok_and(|n| n < parsed.stages.len());
    if number || names.iter().any(|n| n.eq_ignore_ascii_case(stage)) {
        return Ok(());
    }
    Err(ProjectError::NoStage {
        file: file.to_owned(),
        stage: stage.clone(),
        known: names.join(", "),
    })
}

fn join(base: &str, name: &str) -> String {
    if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") }
}

/// A path of the project, links followed; refuses one that ends outside.
pub(crate) fn inside(root: &Path, path: &str) -> Result<PathBuf, ProjectError> {
    let full = root.join(path);
    let unreadable = |source| ProjectError::Unreadable { path: path.to_owned(), source };
    let resolved = match fs::canonicalize(&full) {
        Ok(resolved) => resolved,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(full),
        Err(error) => return Err(unreadable(error)),
    };
    let root = fs::canonicalize(root).map_err(unreadable)?;
    match resolved.starts_with(&root) {
        true => Ok(resolved),
        false => Err(ProjectError::Outside(path.to_owned())),
    }
}

/// A text file of the project, or nothing if it is not there.
pub(crate) fn optional_text(root: &Path, path: &str) -> Result<Option<String>, ProjectError> {
    let clean = Path::new(path).components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if !clean {
        return Err(ProjectError::Outside(path.to_owned()));
    }
    let full = inside(root, path)?;
    let unreadable = |source| ProjectError::Unreadable { path: path.to_owned(), source };
    let meta = match fs::metadata(&full) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let invalid = |message: String| ProjectError::Invalid { file: path.to_owned(), message };
    if !meta.is_file() {
        return Err(invalid("this is no file".into()));
    }
    if meta.len() > MAX_TEXT {
        let message = format!("the file has {} bytes; the limit is {MAX_TEXT}", meta.len());
        return Err(invalid(message));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(&full).map_err(unreadable)?;
    file.take(MAX_TEXT).read_to_end(&mut bytes).map_err(unreadable)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(invalid("this is no text in UTF-8".into())),
    }
}

/// `balena.yml` (or `minke.yml`): the release's contract, and its version.
fn contract(
    root: &Path,
    warnings: &mut Vec<String>,
) -> Result<(Option<Value>, Option<String>), ProjectError> {
    for name in ["balena.yml", "minke.yml"] {
        let Some(text) = optional_text(root, name)? else { continue };
        let contract = minke_common_compose::read_json(&text)
            .map_err(|e| ProjectError::Invalid { file: name.to_owned(), message: e.to_string() })?;
        if !contract.is_object() {
            let message = "line 1, column 1: expected a mapping with `name` and `type`".to_owned();
            return Err(ProjectError::Invalid { file: name.to_owned(), message });
        }
        let version = match &contract["version"] {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        };
        let semver = version.filter(|text| match Semver::parse(text) {
            Ok(_) => true,
            Err(error) => {
                warnings.push(format!("{name}: `version` is not used: {error}"));
                false
            }
        });
        return Ok((Some(contract), semver));
    }
    Ok((None, None))
}

/// Build variables by service; those of `None` are every service's.
pub(crate) type Variables = BTreeMap<Option<String>, Vec<(String, String)>>;

/// Build variables of `.balena/balena.yml`: for every service, and for one.
pub(crate) fn build_variables(root: &Path) -> Result<Variables, ProjectError> {
    let file = ".balena/balena.yml";
    let mut out = BTreeMap::new();
    let Some(text) = optional_text(root, file)? else { return Ok(out) };
    let invalid = |message: String| ProjectError::Invalid { file: file.to_owned(), message };
    let value = minke_common_compose::read_json(&text).map_err(|e| invalid(e.to_string()))?;
    let list = |value: &Value| -> Vec<(String, String)> {
        let items = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        items.filter_map(|i| i.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    };
    let variables = &value["build-variables"];
    out.insert(None, list(&variables["global"]));
    for (name, own) in variables["services"].as_object().into_iter().flatten() {
        out.insert(Some(name.clone()), list(own));
    }
    Ok(out)
}
