//! What a person may do, and what anybody may see.

use super::{OF_APPLICATION, Permissions, Verb, along};

const READ: &[Verb] = &[Verb::Read];
const WRITE: &[Verb] = &[Verb::Create, Verb::Update, Verb::Delete];
const ALL: &[Verb] = &Verb::ALL;

/// The row is an application that the caller has direct access to.
const ACCESSIBLE: &str =
    "{}is_directly_accessible_by__user/any(dau:dau/user/any(u:u/actor eq @__ACTOR_ID))";
/// The membership role that changes a fleet as its organization's members do.
const DEVELOPER: &str = "r/name eq 'developer'";
/// The membership roles that change a fleet's devices and register new ones. The provisioning keys and
/// config files by which devices register themselves are made by developers.
const OPERATORS: &str = "r/name in ('developer','operator')";
/// The row is an organization of the caller's.
const MEMBER: &str = "{}organization_membership/any(om:om/user/any(u:u/actor eq @__ACTOR_ID))";
/// The row is an organization that the caller administers.
const ADMINISTRATOR: &str = "{}organization_membership/any(om:om/organization_membership_role/any(r:r/name eq 'administrator') and om/user/any(u:u/actor eq @__ACTOR_ID))";
/// The row is the caller.
const SELF: &str = "{}actor eq @__ACTOR_ID";

/// The row is an application that the caller has direct access to by more than looking at it: from
/// its organization, or by a membership or a team whose role is one of `roles`.
fn changeable(roles: &str) -> String {
    let caller = "user/any(u:u/actor eq @__ACTOR_ID)";
    let role = format!("application_membership_role/any(r:{roles})");
    // The kept rows come first: strangers go no further than one look-up.
    format!(
        "{ACCESSIBLE} and ({{}}organization/any(o:o/organization_membership/any(om:om/{caller})) or \
         {{}}user_application_membership/any(m:m/{role} and m/{caller}) or \
         {{}}team_application_access/any(a:a/{role} and \
         a/team/any(t:t/team_membership/any(tm:tm/{caller}))))"
    )
}

/// Whether rows are a device or a part of one.
fn is_of_device(resource: &str, path: &[&str]) -> bool {
    resource == "device" || path.contains(&"device")
}

/// What is public of an application that is: what it takes to run its releases, not who runs them.
const PUBLIC: [&str; 10] = [
    "application",
    "application_tag",
    "service",
    "service_label",
    "release",
    "release_tag",
    "release_asset",
    "image",
    "release_image",
    "image_label",
];

fn allow_public_applications(table: &mut Permissions) {
    for (resource, path) in OF_APPLICATION {
        if PUBLIC.contains(&resource) {
            table.allow(resource, READ, &along(path, "{}is_public eq true"));
        }
    }
}

pub(super) fn public_rules() -> Permissions {
    let mut table = Permissions::default();
    table.allow_catalogue();
    allow_public_applications(&mut table);
    table
}

pub(super) fn rules() -> Permissions {
    let mut table = Permissions::default();
    table.allow_catalogue();
    allow_applications(&mut table);
    allow_public_applications(&mut table);
    allow_account(&mut table);
    allow_organizations(&mut table);
    table
}

/// The applications in which a person may make devices, as what may be read.
pub(super) fn rules_of_registering() -> Permissions {
    let mut table = Permissions::default();
    table.allow("application", READ, &along(&[], &changeable(OPERATORS)));
    table
}

fn allow_applications(table: &mut Permissions) {
    let (developed, operated) = (changeable(DEVELOPER), changeable(OPERATORS));
    for (resource, path) in OF_APPLICATION {
        table.allow(resource, READ, &along(path, ACCESSIBLE));
        let changed = if is_of_device(resource, path) { &operated } else { &developed };
        match resource {
            // Made by the organization's members; the access row of the new one may not exist yet.
            "application" => {
                table.allow(resource, &[Verb::Create], &along(&["organization"], MEMBER));
                table.allow(resource, &[Verb::Update, Verb::Delete], &along(path, changed));
            }
            "delta" => {}
            _ => table.allow(resource, WRITE, &along(path, changed)),
        }
    }
    table.allow("device_history", READ, &along(&["belongs_to__application"], ACCESSIBLE));
    let access = "user__has_direct_access_to__application";
    table.allow(access, READ, &along(&["user"], SELF));
    for (resource, path) in [
        ("user_application_membership", "is_member_of__application"),
        ("application_invite", "is_invited_to__application"),
    ] {
        table.allow(resource, READ, &along(&[path], ACCESSIBLE));
        table.allow(resource, WRITE, &along(&[path], &developed));
    }
    // Whoever may only look may still leave.
    table.allow("user_application_membership", &[Verb::Delete], &along(&["user"], SELF));
    table.allow(
        "service_instance",
        READ,
        &along(&["manages__device", "belongs_to__application"], ACCESSIBLE),
    );
}

fn allow_account(table: &mut Permissions) {
    table.allow("user", &[Verb::Read, Verb::Update], SELF.replace("{}", "").as_str());
    let colleagues = ["organization_membership", "is_member_of__organization"];
    table.allow("user", READ, &along(&colleagues, MEMBER));
    table.allow("user_public_key", ALL, &along(&["user"], SELF));
    table.allow("user_profile", READ, &along(&["is_of__user"], SELF));
    table.allow("social_service_account", READ, &along(&["belongs_to__user"], SELF));

    table.allow("actor", READ, "id eq @__ACTOR_ID");
    table.allow("actor", READ, &along(&["is_of__application"], ACCESSIBLE));
    table.allow("actor", READ, &along(&["is_of__device", "belongs_to__application"], ACCESSIBLE));
    allow_keys(table);
}

/// Keys are made by their own endpoints: there the key itself is answered, once.
fn allow_keys(table: &mut Permissions) {
    let changes = &[Verb::Update, Verb::Delete];
    table.allow("api_key", READ, "is_of__actor eq @__ACTOR_ID");
    table.allow("api_key", changes, "is_of__actor eq @__ACTOR_ID");
    for (path, roles) in [
        (&["is_of__actor", "is_of__application"][..], DEVELOPER),
        (&["is_of__actor", "is_of__device", "belongs_to__application"], OPERATORS),
    ] {
        table.allow("api_key", READ, &along(path, ACCESSIBLE));
        table.allow("api_key", changes, &along(path, &changeable(roles)));
    }
}

fn allow_organizations(table: &mut Permissions) {
    table.allow("organization", READ, &along(&[], MEMBER));
    // The maker of an organization becomes its first administrator in the same transaction.
    table.allow("organization", WRITE, &along(&[], ADMINISTRATOR));
    for (resource, path) in [
        ("organization_membership", &["is_member_of__organization"][..]),
        ("organization_invite", &["is_invited_to__organization"]),
        ("organization_membership_tag", &["organization_membership", "is_member_of__organization"]),
        ("team", &["belongs_to__organization"]),
        ("team_membership", &["is_member_of__team", "belongs_to__organization"]),
    ] {
        table.allow(resource, READ, &along(path, MEMBER));
        table.allow(resource, WRITE, &along(path, ADMINISTRATOR));
    }
    allow_teams_access(table);
    let invited = ["organization_invite", "is_invited_to__organization"];
    table.allow("invitee", READ, &along(&invited, MEMBER));
    let invited = ["application_invite", "is_invited_to__application"];
    table.allow("invitee", READ, &along(&invited, ACCESSIBLE));
}

/// What a team has is the team's administrator's to give up, and more of it the fleet's to give.
fn allow_teams_access(table: &mut Permissions) {
    let (resource, team) = ("team_application_access", ["team", "belongs_to__organization"]);
    let administered = along(&team, ADMINISTRATOR);
    let developed = along(&["grants_access_to__application"], &changeable(DEVELOPER));
    table.allow(resource, READ, &along(&team, MEMBER));
    table.allow(resource, &[Verb::Create, Verb::Delete], &administered);
    table.allow(resource, &[Verb::Update], &format!("{administered} and {developed}"));
}
