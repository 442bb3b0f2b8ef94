//! The resource model: every resource, field and navigation of v7, as data.
//!
//! `model.json` is generated once from the published models of the open and of the cloud API (where
//! they differ, v7 of the cloud wins) and reviewed by hand since; it is the truth. The tables are
//! made by migrations; a test holds the two together.
//!
//! Invariants, checked when the model is loaded:
//! * every name of a resource, and every name within a resource, means one thing;
//! * every reverse navigation names the link at its other end;
//! * computed columns use only `{t}` (the row's alias), `{s}` (its status table's), `{now}`
//!   (milliseconds) and other computed columns of the same resource.

mod load;

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::Value;

/// All resources.
#[derive(Debug)]
pub struct Model {
    resources: Vec<Resource>,
    by_name: HashMap<String, usize>,
}

/// A kind of row that requests can address.
#[derive(Debug)]
pub struct Resource {
    /// The name used inside: the shortest one of v7. Also the table's name.
    pub name: String,
    /// Other names in requests.
    pub synonyms: Vec<String>,
    /// Only the rules write it, or it is a view over other resources.
    pub is_readonly: bool,
    /// Keys that no two rows share.
    pub unique: Vec<Vec<String>>,
    /// Where a change of such a row shows in the target state of devices.
    pub generation: Option<Generation>,
    /// Columns with values.
    pub fields: Vec<Field>,
    /// Columns that point to another row.
    pub links: Vec<Link>,
    /// Rows of other resources that point here.
    pub reverse: Vec<Reverse>,
    by_name: HashMap<String, Member>,
}

/// Whose generation moves with a resource: the rows at the end of `path`.
#[derive(Debug)]
pub struct Generation {
    /// `application` or `device`.
    pub of: String,
    /// Links from the resource to that row; empty = the resource itself.
    pub path: Vec<String>,
}

/// What a name inside a resource means; an index into the resource's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// `fields[i]`.
    Field(usize),
    /// `links[i]`.
    Link(usize),
    /// `reverse[i]`.
    Reverse(usize),
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number; a JSON number.
    Integer,
    /// A whole number; a string in JSON.
    BigInteger,
    /// A double.
    Real,
    /// True or false.
    Boolean,
    /// Text.
    Text,
    /// Milliseconds since the epoch; ISO text in JSON.
    DateTime,
    /// A JSON document, stored as text.
    Json,
    /// A stored file: `{filename, href, content_type, size}`.
    WebResource,
    /// A release's version in parts, made from its text.
    Version,
}

/// Who may name a field in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever sees the row.
    Normal,
    /// The server itself.
    Root,
    /// The server itself, by name: never part of a whole row.
    Secret,
}

/// A column with a value.
#[derive(Debug)]
pub struct Field {
    /// Its only name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
    /// Most characters of a text.
    pub max: usize,
    /// The only texts allowed; empty = any.
    pub values: Vec<String>,
    /// Value of a new row that says none; `"now()"` is the time of the request.
    pub default: Option<Value>,
    /// SQL in place of a column.
    pub computed: Option<String>,
    /// Only the server writes it.
    pub readonly: bool,
    /// Who may name it.
    pub access: Access,
    /// Kept in the status table: changes often, and no target state says it.
    pub volatile: bool,
}

/// What becomes of a row when the row it points to goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// It goes too.
    Cascade,
    /// It points nowhere.
    SetNull,
    /// The other row must stay.
    Restrict,
}

/// A column that points to a row.
#[derive(Debug)]
pub struct Link {
    /// The column.
    pub name: String,
    /// Other names in requests.
    pub synonyms: Vec<String>,
    /// Index of the resource it points to.
    pub to: usize,
    /// Whether it may be null.
    pub nullable: bool,
    /// Only the server writes it.
    pub readonly: bool,
    /// SQL in place of a column.
    pub computed: Option<String>,
    /// Kept in the status table.
    pub volatile: bool,
    /// When the other row goes.
    pub on_delete: OnDelete,
}

/// Rows that point here.
#[derive(Debug)]
pub struct Reverse {
    /// Its names.
    pub names: Vec<String>,
    /// Index of the resource of those rows.
    pub from: usize,
    /// Index of the link of theirs that points here.
    pub key: usize,
}

impl Model {
    /// The model of this program.
    pub fn get() -> &'static Self {
        static MODEL: OnceLock<Model> = OnceLock::new();
        MODEL.get_or_init(|| {
            load::parse(include_str!("model.json"))
                .unwrap_or_else(|fault| panic!("the built-in resource model is wrong: {fault}"))
        })
    }

    /// Every resource.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// The resource that any of its names means.
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.by_name.get(name).and_then(|at| self.resources.get(*at))
    }

    /// The resource at an index that this model gave out.
    pub fn at(&self, index: usize) -> &Resource {
        &self.resources[index]
    }
}

impl Resource {
    /// What a name means inside this resource.
    pub fn member(&self, name: &str) -> Option<Member> {
        self.by_name.get(name).copied()
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        match self.member(name) {
            Some(Member::Field(at)) => self.fields.get(at),
            _ => None,
        }
    }

    /// The link that any of its names means.
    pub fn link(&self, name: &str) -> Option<&Link> {
        match self.member(name) {
            Some(Member::Link(at)) => self.links.get(at),
            _ => None,
        }
    }

    /// Whether part of the row is in a table of its own, `<name>_status`.
    pub fn has_status(&self) -> bool {
        self.fields.iter().any(|f| f.volatile) || self.links.iter().any(|l| l.volatile)
    }

    /// Name of the table with the volatile part.
    pub fn status_table(&self) -> String {
        format!("{}_status", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_loads_and_has_every_published_resource() {
        let model = Model::get();
        assert_eq!(model.resources().len(), 85);
        for name in ["application__has__service_name", "service", "release_image", "user"] {
            assert!(model.resource(name).is_some(), "{name}");
        }
        assert_eq!(
            model.resource("image__is_part_of__release").map(|r| r.name.as_str()),
            Some("release_image")
        );
    }

    #[test]
    fn a_reverse_navigation_names_its_key() {
        let release = Model::get().resource("release").expect("release");
        let key = |name: &str| match release.member(name) {
            Some(Member::Reverse(at)) => {
                let reverse = &release.reverse[at];
                Model::get().at(reverse.from).links[reverse.key].name.clone()
            }
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(key("is_running_on__device"), "is_running__release");
        assert_eq!(key("is_pinned_to__device"), "is_pinned_on__release");
        assert_eq!(key("should_be_running_on__device"), "should_be_running__release");
        assert_eq!(key("should_operate__device"), "should_be_operated_by__release");
        assert_eq!(key("should_manage__device"), "should_be_managed_by__release");
    }

    #[test]
    fn computed_columns_are_expanded() {
        for resource in Model::get().resources() {
            let fields = resource.fields.iter().filter_map(|f| f.computed.as_ref());
            for sql in fields.chain(resource.links.iter().filter_map(|l| l.computed.as_ref())) {
                let rest = sql.replace("{t}", "").replace("{s}", "").replace("{now}", "");
                assert!(!rest.contains('{'), "{}: {sql}", resource.name);
            }
        }
    }
}
