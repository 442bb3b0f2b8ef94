//! What every server knows from its first start: architectures, device types with their contracts,
//! application types, roles. Run at each start; names and contracts follow the program.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::store::Session;

/// When the catalogue's rows were made: with the program, not at some server's start.
const MADE: i64 = 1_795_219_200_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    cpu_architectures: Vec<String>,
    application_types: Vec<ApplicationType>,
    organization_membership_roles: Vec<String>,
    application_membership_roles: Vec<Role>,
    roles: Vec<String>,
    device_manufacturers: Vec<Named>,
    device_families: Vec<Family>,
    device_types: Vec<DeviceType>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplicationType {
    slug: String,
    name: String,
    description: String,
    supports_multicontainer: bool,
    supports_web_url: bool,
    supports_gateway_mode: bool,
    requires_payment: bool,
    is_legacy: bool,
    #[serde(rename = "needs__os_version_range")]
    needs_os_version_range: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Role {
    name: String,
    description: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    slug: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    slug: String,
    name: String,
    manufacturer: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceType {
    slug: String,
    name: String,
    arch: String,
    family: Option<String>,
    aliases: Vec<String>,
    data: Value,
}

pub(crate) async fn run(session: &mut Session) -> Result<()> {
    let catalogue: Catalogue = serde_json::from_str(include_str!("catalogue.json"))
        .map_err(|error| Error::Corrupt(format!("the built-in catalogue is wrong: {error}")))?;
    for slug in &catalogue.cpu_architectures {
        row(session, "cpu_architecture", "slug", &[("slug", slug.as_str().into())]).await?;
    }
    for kind in &catalogue.application_types {
        application_type(session, kind).await?;
    }
    for name in &catalogue.organization_membership_roles {
        row(session, "organization_membership_role", "name", &[("name", name.as_str().into())])
            .await?;
    }
    for role in &catalogue.application_membership_roles {
        let columns = [
            ("name", role.name.as_str().into()),
            ("description", role.description.as_str().into()),
        ];
        row(session, "application_membership_role", "name", &columns).await?;
    }
    for name in &catalogue.roles {
        row(session, "role", "name", &[("name", name.as_str().into())]).await?;
    }
    for maker in &catalogue.device_manufacturers {
        let columns = [("slug", maker.slug.as_str().into()), ("name", maker.name.as_str().into())];
        row(session, "device_manufacturer", "slug", &columns).await?;
    }
    for family in &catalogue.device_families {
        let mut columns =
            vec![("slug", family.slug.as_str().into()), ("name", family.name.as_str().into())];
        if let Some(maker) = &family.manufacturer {
            let id = id_of(session, "device_manufacturer", maker).await?;
            columns.push(("is_manufactured_by__device_manufacturer", id.into()));
        }
        row(session, "device_family", "slug", &columns).await?;
    }
    for kind in &catalogue.device_types {
        device_type(session, kind).await?;
    }
    Ok(())
}

async fn application_type(session: &mut Session, kind: &ApplicationType) -> Result<()> {
    let mut columns = vec![
        ("slug", kind.slug.as_str().into()),
        ("name", kind.name.as_str().into()),
        ("description", kind.description.as_str().into()),
        ("supports_multicontainer", kind.supports_multicontainer.into()),
        ("supports_web_url", kind.supports_web_url.into()),
        ("supports_gateway_mode", kind.supports_gateway_mode.into()),
        ("requires_payment", kind.requires_payment.into()),
        ("is_legacy", kind.is_legacy.into()),
    ];
    if let Some(range) = &kind.needs_os_version_range {
        columns.push(("needs__os_version_range", range.as_str().into()));
    }
    row(session, "application_type", "slug", &columns).await
}

async fn device_type(session: &mut Session, kind: &DeviceType) -> Result<()> {
    let contract = json!({
        "type": "hw.device-type", "slug": kind.slug, "version": "1", "name": kind.name,
        "aliases": kind.aliases, "data": kind.data,
    });
    let mut columns = vec![
        ("slug", kind.slug.as_str().into()),
        ("name", kind.name.as_str().into()),
        ("contract", contract.to_string().into()),
        ("is_private", false.into()),
        ("is_of__cpu_architecture", id_of(session, "cpu_architecture", &kind.arch).await?.into()),
    ];
    if let Some(family) = &kind.family {
        let family = id_of(session, "device_family", family).await?;
        columns.push(("belongs_to__device_family", family.into()));
    }
    row(session, "device_type", "slug", &columns).await?;
    let id = id_of(session, "device_type", &kind.slug).await?;
    // A device type answers to its own name as well.
    for alias in std::iter::once(&kind.slug).chain(&kind.aliases) {
        let columns =
            [("is_referenced_by__alias", alias.as_str().into()), ("device_type", id.into())];
        row(session, "device_type_alias", "is_referenced_by__alias", &columns).await?;
    }
    Ok(())
}

async fn id_of(session: &mut Session, table: &str, slug: &str) -> Result<i64> {
    let rest = format!("FROM \"{table}\" WHERE \"slug\" = $1");
    let rows =
        session.rows("finding a row of the catalogue", "\"id\"", &rest, [slug.into()]).await?;
    let id = rows.first().and_then(|row| row.first()?.as_i64());
    id.ok_or_else(|| Error::Corrupt(format!("the catalogue has no {table} {slug:?}")))
}

/// Makes a row, or brings the one with the same key up to date.
async fn row(
    session: &mut Session,
    table: &str,
    key: &str,
    columns: &[(&str, Cell)],
) -> Result<()> {
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let places: Vec<String> = (0..columns.len()).map(|at| format!("${}", at + 2)).collect();
    let changed: Vec<String> = columns
        .iter()
        .filter(|(name, _)| *name != key)
        .map(|(name, _)| format!("\"{name}\" = excluded.\"{name}\""))
        .collect();
    let then = match changed.is_empty() {
        true => "NOTHING".to_owned(),
        false => format!("UPDATE SET {}", changed.join(", ")),
    };
    let sql = format!(
        "INSERT INTO \"{table}\" (\"created_at\", \"modified_at\", {}) VALUES ($1, $1, {}) ON \
         CONFLICT (\"{key}\") DO {then}",
        names.join(", "),
        places.join(", ")
    );
    let values = columns.iter().map(|(_, cell)| cell.clone());
    let values: Vec<Cell> = std::iter::once(Cell::Integer(MADE)).chain(values).collect();
    session.run("seeding the catalogue", &sql, values).await.map(drop)
}
