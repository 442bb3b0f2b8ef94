//! Reading and checking `model.json`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Access, Field, Generation, Kind, Link, Member, Model, OnDelete, Resource, Reverse};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModel {
    resources: Vec<RawResource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResource {
    name: String,
    #[serde(default)]
    synonyms: Vec<String>,
    #[serde(default)]
    readonly: bool,
    #[serde(default)]
    unique: Vec<Vec<String>>,
    generation: Option<RawGeneration>,
    fields: Vec<RawField>,
    #[serde(default)]
    links: Vec<RawLink>,
    #[serde(default)]
    reverse: Vec<RawReverse>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGeneration {
    of: String,
    path: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    nullable: bool,
    max: Option<usize>,
    #[serde(default)]
    values: Vec<String>,
    default: Option<Value>,
    computed: Option<String>,
    #[serde(default)]
    readonly: bool,
    access: Option<String>,
    #[serde(default)]
    volatile: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    name: String,
    #[serde(default)]
    synonyms: Vec<String>,
    to: String,
    #[serde(default)]
    nullable: bool,
    #[serde(default)]
    readonly: bool,
    computed: Option<String>,
    #[serde(default)]
    volatile: bool,
    on_delete: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReverse {
    names: Vec<String>,
    from: String,
    key: String,
}

/// Longest text of a field that says no limit of its own, in characters.
const DEFAULT_MAX: usize = 255;

pub(super) fn parse(text: &str) -> Result<Model, String> {
    let raw: RawModel = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut by_name = HashMap::new();
    for (at, resource) in raw.resources.iter().enumerate() {
        for name in std::iter::once(&resource.name).chain(&resource.synonyms) {
            if by_name.insert(name.clone(), at).is_some() {
                return Err(format!("two resources are called {name}"));
            }
        }
    }
    let find = |name: &str| {
        by_name.get(name).copied().ok_or_else(|| format!("there is no resource {name}"))
    };
    let keys: Vec<Vec<(String, usize)>> = raw
        .resources
        .iter()
        .map(|r| r.links.iter().map(|l| Ok((l.name.clone(), find(&l.to)?))).collect())
        .collect::<Result<_, String>>()?;
    let resources = raw
        .resources
        .into_iter()
        .enumerate()
        .map(|(at, raw)| {
            let name = raw.name.clone();
            resource(at, raw, &find, &keys).map_err(|fault| format!("{name}: {fault}"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let model = Model { resources, by_name };
    model.resources.iter().try_for_each(|resource| check(&model, resource))?;
    Ok(model)
}

fn resource(
    at: usize,
    raw: RawResource,
    find: &impl Fn(&str) -> Result<usize, String>,
    keys: &[Vec<(String, usize)>],
) -> Result<Resource, String> {
    let computed: HashMap<String, String> = raw
        .fields
        .iter()
        .filter_map(|f| f.computed.clone().map(|sql| (f.name.clone(), sql)))
        .collect();
    let fields =
        raw.fields.into_iter().map(|f| field(f, &computed)).collect::<Result<Vec<_>, _>>()?;
    let links = raw
        .links
        .into_iter()
        .map(|raw| link(raw, find, &computed))
        .collect::<Result<Vec<_>, _>>()?;
    let reverse = raw
        .reverse
        .into_iter()
        .map(|raw| reverse(at, &raw, find, keys))
        .collect::<Result<Vec<_>, _>>()?;
    let mut by_name = HashMap::new();
    let own = fields.iter().enumerate().map(|(i, f)| (f.name.clone(), Member::Field(i)));
    let out = links.iter().enumerate().flat_map(|(i, l)| {
        std::iter::once(&l.name).chain(&l.synonyms).map(move |n| (n.clone(), Member::Link(i)))
    });
    let back = reverse
        .iter()
        .enumerate()
        .flat_map(|(i, r)| r.names.iter().map(move |n| (n.clone(), Member::Reverse(i))));
    for (name, member) in own.chain(out).chain(back) {
        if by_name.insert(name.clone(), member).is_some() {
            return Err(format!("two members are called {name}"));
        }
    }
    Ok(Resource {
        name: raw.name,
        synonyms: raw.synonyms,
        is_readonly: raw.readonly,
        unique: raw.unique,
        generation: raw.generation.map(|g| Generation { of: g.of, path: g.path }),
        fields,
        links,
        reverse,
        by_name,
    })
}

fn field(raw: RawField, computed: &HashMap<String, String>) -> Result<Field, String> {
    let kind = match raw.kind.as_str() {
        "integer" => Kind::Integer,
        "big_integer" => Kind::BigInteger,
        "real" => Kind::Real,
        "boolean" => Kind::Boolean,
        "text" => Kind::Text,
        "date_time" => Kind::DateTime,
        "json" => Kind::Json,
        "web_resource" => Kind::WebResource,
        "version" => Kind::Version,
        other => return Err(format!("{}: unknown type {other}", raw.name)),
    };
    let access = match raw.access.as_deref() {
        None => Access::Normal,
        Some("root") => Access::Root,
        Some("secret") => Access::Secret,
        Some(other) => return Err(format!("{}: unknown access {other}", raw.name)),
    };
    Ok(Field {
        computed: raw.computed.map(|sql| expand(&sql, computed)),
        name: raw.name,
        kind,
        nullable: raw.nullable,
        max: raw.max.unwrap_or(DEFAULT_MAX),
        values: raw.values,
        default: raw.default,
        readonly: raw.readonly,
        access,
        volatile: raw.volatile,
    })
}

/// Puts computed columns in place of their names.
fn expand(sql: &str, computed: &HashMap<String, String>) -> String {
    let mut text = sql.to_owned();
    // A computed column may use another one, which may use a third; none goes deeper.
    for _ in 0..3 {
        for (name, inner) in computed {
            text = text.replace(&format!("{{{name}}}"), &format!("({inner})"));
        }
    }
    text
}

fn link(
    raw: RawLink,
    find: &impl Fn(&str) -> Result<usize, String>,
    computed: &HashMap<String, String>,
) -> Result<Link, String> {
    let on_delete = match raw.on_delete.as_deref() {
        Some("cascade") => OnDelete::Cascade,
        Some("restrict") => OnDelete::Restrict,
        Some("set_null") => OnDelete::SetNull,
        None if raw.computed.is_some() => OnDelete::Restrict,
        other => return Err(format!("{}: unknown on_delete {other:?}", raw.name)),
    };
    Ok(Link {
        to: find(&raw.to)?,
        computed: raw.computed.map(|sql| expand(&sql, computed)),
        name: raw.name,
        synonyms: raw.synonyms,
        nullable: raw.nullable,
        readonly: raw.readonly,
        volatile: raw.volatile,
        on_delete,
    })
}

fn reverse(
    at: usize,
    raw: &RawReverse,
    find: &impl Fn(&str) -> Result<usize, String>,
    keys: &[Vec<(String, usize)>],
) -> Result<Reverse, String> {
    let from = find(&raw.from)?;
    let links = keys.get(from).map(Vec::as_slice).unwrap_or_default();
    let Some(key) = links.iter().position(|(name, _)| *name == raw.key) else {
        return Err(format!("{} has no link {}", raw.from, raw.key));
    };
    // A view shares the primary key of what it shows, so links to that lead to it as well.
    let (public, organization) = (find("public_organization")?, find("organization")?);
    let target = links.get(key).map(|(_, to)| *to);
    if target != Some(at) && !(at == public && target == Some(organization)) {
        return Err(format!("{}.{} does not point here", raw.from, raw.key));
    }
    Ok(Reverse { names: raw.names.clone(), from, key })
}

fn check(model: &Model, resource: &Resource) -> Result<(), String> {
    let known = |name: &str| resource.field(name).is_some() || resource.link(name).is_some();
    for name in resource.unique.iter().flatten() {
        if !known(name) {
            return Err(format!("{}: unique names {name}, which is not there", resource.name));
        }
    }
    let Some(generation) = &resource.generation else { return Ok(()) };
    let mut here = resource;
    for step in &generation.path {
        let link = here.link(step).ok_or_else(|| format!("{}: no link {step}", resource.name))?;
        here = model.at(link.to);
    }
    if here.name != generation.of {
        return Err(format!("{}: the path ends at {}", resource.name, here.name));
    }
    Ok(())
}
