-- The tables of the resource model. A line marked with an engine is for that engine only; {serial}
-- is its own way to number rows and {text} its text type, compared byte by byte.
-- Of several keys that a new row breaks, SQLite names the one of the newest index, PostgreSQL of the
-- oldest: so that both name the same, one makes them in the order of the other backwards.

CREATE TABLE "actor" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL
);

CREATE TABLE "permission" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL
);
CREATE UNIQUE INDEX "permission_unique_0" ON "permission" ("name");

CREATE TABLE "role" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL
);
CREATE UNIQUE INDEX "role_unique_0" ON "role" ("name");

CREATE TABLE "role__has__permission" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "role" BIGINT NOT NULL REFERENCES "role" ("id") ON DELETE RESTRICT, -- sqlite
    "role" BIGINT NOT NULL, -- postgres
    "permission" BIGINT NOT NULL REFERENCES "permission" ("id") ON DELETE CASCADE -- sqlite
    "permission" BIGINT NOT NULL -- postgres
);
CREATE INDEX "role__has__permission_permission" ON "role__has__permission" ("permission");
CREATE UNIQUE INDEX "role__has__permission_unique_0" ON "role__has__permission" ("role", "permission");

CREATE TABLE "user" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "username" {text} NOT NULL,
    "password" {text},
    "jwt_secret" {text},
    "email" {text},
    "actor" BIGINT NOT NULL REFERENCES "actor" ("id") ON DELETE RESTRICT, -- sqlite
    "actor" BIGINT NOT NULL, -- postgres
    "has_legacy_link_to__organization" BIGINT REFERENCES "organization" ("id") ON DELETE SET NULL -- sqlite
    "has_legacy_link_to__organization" BIGINT -- postgres
);
CREATE INDEX "user_actor" ON "user" ("actor");
CREATE INDEX "user_has_legacy_link_to__organization" ON "user" ("has_legacy_link_to__organization");
CREATE UNIQUE INDEX "user_unique_0" ON "user" ("username"); -- postgres
CREATE UNIQUE INDEX "user_unique_1" ON "user" ("email"); -- postgres
CREATE UNIQUE INDEX "user_unique_1" ON "user" ("email"); -- sqlite
CREATE UNIQUE INDEX "user_unique_0" ON "user" ("username"); -- sqlite

CREATE TABLE "user_role" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "expiry_date" BIGINT,
    "user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE, -- sqlite
    "user" BIGINT NOT NULL, -- postgres
    "role" BIGINT NOT NULL REFERENCES "role" ("id") ON DELETE RESTRICT -- sqlite
    "role" BIGINT NOT NULL -- postgres
);
CREATE INDEX "user_role_role" ON "user_role" ("role");
CREATE UNIQUE INDEX "user_role_unique_0" ON "user_role" ("user", "role");

CREATE TABLE "user_permission" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "expiry_date" BIGINT,
    "user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE, -- sqlite
    "user" BIGINT NOT NULL, -- postgres
    "permission" BIGINT NOT NULL REFERENCES "permission" ("id") ON DELETE CASCADE -- sqlite
    "permission" BIGINT NOT NULL -- postgres
);
CREATE INDEX "user_permission_permission" ON "user_permission" ("permission");
CREATE UNIQUE INDEX "user_permission_unique_0" ON "user_permission" ("user", "permission");

CREATE TABLE "api_key" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "key" {text} NOT NULL,
    "expiry_date" BIGINT,
    "name" {text},
    "description" {text},
    "is_of__actor" BIGINT NOT NULL REFERENCES "actor" ("id") ON DELETE CASCADE -- sqlite
    "is_of__actor" BIGINT NOT NULL -- postgres
);
CREATE INDEX "api_key_is_of__actor" ON "api_key" ("is_of__actor");
CREATE UNIQUE INDEX "api_key_unique_0" ON "api_key" ("key");

CREATE TABLE "api_key__has__role" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "api_key" BIGINT NOT NULL REFERENCES "api_key" ("id") ON DELETE CASCADE, -- sqlite
    "api_key" BIGINT NOT NULL, -- postgres
    "role" BIGINT NOT NULL REFERENCES "role" ("id") ON DELETE RESTRICT -- sqlite
    "role" BIGINT NOT NULL -- postgres
);
CREATE INDEX "api_key__has__role_role" ON "api_key__has__role" ("role");
CREATE UNIQUE INDEX "api_key__has__role_unique_0" ON "api_key__has__role" ("api_key", "role");

CREATE TABLE "api_key__has__permission" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "api_key" BIGINT NOT NULL REFERENCES "api_key" ("id") ON DELETE CASCADE, -- sqlite
    "api_key" BIGINT NOT NULL, -- postgres
    "permission" BIGINT NOT NULL REFERENCES "permission" ("id") ON DELETE CASCADE -- sqlite
    "permission" BIGINT NOT NULL -- postgres
);
CREATE INDEX "api_key__has__permission_permission" ON "api_key__has__permission" ("permission");
CREATE UNIQUE INDEX "api_key__has__permission_unique_0" ON "api_key__has__permission" ("api_key", "permission");

CREATE TABLE "application_type" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "supports_web_url" BOOLEAN NOT NULL,
    "supports_multicontainer" BOOLEAN NOT NULL,
    "supports_gateway_mode" BOOLEAN NOT NULL,
    "needs__os_version_range" {text},
    "requires_payment" BOOLEAN NOT NULL,
    "is_legacy" BOOLEAN NOT NULL,
    "slug" {text} NOT NULL,
    "description" {text},
    "maximum_device_count" BIGINT
);
CREATE UNIQUE INDEX "application_type_unique_0" ON "application_type" ("slug");

CREATE TABLE "config" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "key" {text} NOT NULL,
    "value" {text} NOT NULL,
    "scope" {text},
    "description" {text}
);
CREATE UNIQUE INDEX "config_unique_0" ON "config" ("key");

CREATE TABLE "cpu_architecture" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "slug" {text} NOT NULL
);
CREATE UNIQUE INDEX "cpu_architecture_unique_0" ON "cpu_architecture" ("slug");

CREATE TABLE "device_family" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "slug" {text} NOT NULL,
    "name" {text} NOT NULL,
    "is_manufactured_by__device_manufacturer" BIGINT REFERENCES "device_manufacturer" ("id") ON DELETE SET NULL -- sqlite
    "is_manufactured_by__device_manufacturer" BIGINT -- postgres
);
CREATE INDEX "device_family_is_manufactured_by__device_manufacturer" ON "device_family" ("is_manufactured_by__device_manufacturer");
CREATE UNIQUE INDEX "device_family_unique_0" ON "device_family" ("slug");

CREATE TABLE "device_manufacturer" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "slug" {text} NOT NULL,
    "name" {text} NOT NULL
);
CREATE UNIQUE INDEX "device_manufacturer_unique_0" ON "device_manufacturer" ("slug");

CREATE TABLE "device_type" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "slug" {text} NOT NULL,
    "name" {text} NOT NULL,
    "logo" {text},
    "contract" {text},
    "is_private" BOOLEAN NOT NULL,
    "is_of__cpu_architecture" BIGINT NOT NULL REFERENCES "cpu_architecture" ("id") ON DELETE RESTRICT, -- sqlite
    "is_of__cpu_architecture" BIGINT NOT NULL, -- postgres
    "belongs_to__device_family" BIGINT REFERENCES "device_family" ("id") ON DELETE SET NULL -- sqlite
    "belongs_to__device_family" BIGINT -- postgres
);
CREATE INDEX "device_type_is_of__cpu_architecture" ON "device_type" ("is_of__cpu_architecture");
CREATE INDEX "device_type_belongs_to__device_family" ON "device_type" ("belongs_to__device_family");
CREATE UNIQUE INDEX "device_type_unique_0" ON "device_type" ("slug");

CREATE TABLE "image" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "start_timestamp" BIGINT NOT NULL,
    "end_timestamp" BIGINT,
    "dockerfile" {text},
    "image_size" BIGINT,
    "is_stored_at__image_location" {text} NOT NULL,
    "project_type" {text},
    "error_message" {text},
    "build_log" {text},
    "push_timestamp" BIGINT,
    "status" {text} NOT NULL,
    "content_hash" {text},
    "contract" {text},
    "is_a_build_of__service" BIGINT NOT NULL REFERENCES "service" ("id") ON DELETE CASCADE -- sqlite
    "is_a_build_of__service" BIGINT NOT NULL -- postgres
);
CREATE INDEX "image_is_a_build_of__service" ON "image" ("is_a_build_of__service");
CREATE UNIQUE INDEX "image_unique_0" ON "image" ("is_stored_at__image_location");

CREATE TABLE "organization" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "handle" {text} NOT NULL,
    "company_name" {text},
    "billing_account_code" {text},
    "has_past_due_invoice_since__date" BIGINT,
    "industry" {text},
    "website" {text},
    "logo_image" {text},
    "is_using__billing_version" {text},
    "is_enforcing_saml_login" BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX "organization_unique_0" ON "organization" ("handle");

CREATE TABLE "scheduled_job_run" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "start_timestamp" BIGINT NOT NULL,
    "end_timestamp" BIGINT,
    "status" {text} NOT NULL
);

CREATE TABLE "service_instance" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "service_type" {text} NOT NULL,
    "ip_address" {text} NOT NULL,
    "last_heartbeat" BIGINT NOT NULL
);

CREATE TABLE "application" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "should_track_latest_release" BOOLEAN NOT NULL,
    "is_of__class" {text} NOT NULL,
    "app_name" {text} NOT NULL,
    "slug" {text} NOT NULL,
    "is_host" BOOLEAN NOT NULL,
    "is_archived" BOOLEAN NOT NULL,
    "uuid" {text} NOT NULL,
    "is_public" BOOLEAN NOT NULL,
    "is_accessible_by_support_until__date" BIGINT,
    "is_discoverable" BOOLEAN NOT NULL,
    "is_stored_at__repository_url" {text},
    "actor" BIGINT NOT NULL REFERENCES "actor" ("id") ON DELETE RESTRICT, -- sqlite
    "actor" BIGINT NOT NULL, -- postgres
    "organization" BIGINT NOT NULL REFERENCES "organization" ("id") ON DELETE RESTRICT, -- sqlite
    "organization" BIGINT NOT NULL, -- postgres
    "is_for__device_type" BIGINT NOT NULL REFERENCES "device_type" ("id") ON DELETE RESTRICT, -- sqlite
    "is_for__device_type" BIGINT NOT NULL, -- postgres
    "should_be_running__release" BIGINT REFERENCES "release" ("id") ON DELETE SET NULL, -- sqlite
    "should_be_running__release" BIGINT, -- postgres
    "application_type" BIGINT NOT NULL REFERENCES "application_type" ("id") ON DELETE RESTRICT, -- sqlite
    "application_type" BIGINT NOT NULL, -- postgres
    "is_updated_by__application" BIGINT REFERENCES "application" ("id") ON DELETE SET NULL, -- sqlite
    "is_updated_by__application" BIGINT, -- postgres
    "generation" BIGINT NOT NULL
);
CREATE INDEX "application_actor" ON "application" ("actor");
CREATE INDEX "application_is_for__device_type" ON "application" ("is_for__device_type");
CREATE INDEX "application_should_be_running__release" ON "application" ("should_be_running__release");
CREATE INDEX "application_application_type" ON "application" ("application_type");
CREATE INDEX "application_is_updated_by__application" ON "application" ("is_updated_by__application");
CREATE UNIQUE INDEX "application_unique_0" ON "application" ("uuid"); -- postgres
CREATE UNIQUE INDEX "application_unique_1" ON "application" ("slug"); -- postgres
CREATE UNIQUE INDEX "application_unique_2" ON "application" ("organization", "app_name"); -- postgres
CREATE UNIQUE INDEX "application_unique_2" ON "application" ("organization", "app_name"); -- sqlite
CREATE UNIQUE INDEX "application_unique_1" ON "application" ("slug"); -- sqlite
CREATE UNIQUE INDEX "application_unique_0" ON "application" ("uuid"); -- sqlite

CREATE TABLE "application_environment_variable" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "value" {text} NOT NULL,
    "application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE -- sqlite
    "application" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "application_environment_variable_unique_0" ON "application_environment_variable" ("application", "name");

CREATE TABLE "application_config_variable" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "value" {text} NOT NULL,
    "application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE -- sqlite
    "application" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "application_config_variable_unique_0" ON "application_config_variable" ("application", "name");

CREATE TABLE "service" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "service_name" {text} NOT NULL,
    "application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE -- sqlite
    "application" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "service_unique_0" ON "service" ("application", "service_name");

CREATE TABLE "service_label" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "label_name" {text} NOT NULL,
    "value" {text} NOT NULL,
    "service" BIGINT NOT NULL REFERENCES "service" ("id") ON DELETE CASCADE -- sqlite
    "service" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "service_label_unique_0" ON "service_label" ("service", "label_name");

CREATE TABLE "service_environment_variable" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "value" {text} NOT NULL,
    "service" BIGINT NOT NULL REFERENCES "service" ("id") ON DELETE CASCADE -- sqlite
    "service" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "service_environment_variable_unique_0" ON "service_environment_variable" ("service", "name");

CREATE TABLE "application_tag" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "tag_key" {text} NOT NULL,
    "value" {text} NOT NULL,
    "application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE -- sqlite
    "application" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "application_tag_unique_0" ON "application_tag" ("application", "tag_key");

CREATE TABLE "device" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "uuid" {text} NOT NULL,
    "local_id" {text},
    "device_name" {text} NOT NULL,
    "note" {text},
    "is_web_accessible" BOOLEAN NOT NULL,
    "custom_latitude" {text},
    "custom_longitude" {text},
    "is_accessible_by_support_until__date" BIGINT,
    "is_active" BOOLEAN NOT NULL,
    "actor" BIGINT NOT NULL REFERENCES "actor" ("id") ON DELETE RESTRICT, -- sqlite
    "actor" BIGINT NOT NULL, -- postgres
    "is_of__device_type" BIGINT NOT NULL REFERENCES "device_type" ("id") ON DELETE RESTRICT, -- sqlite
    "is_of__device_type" BIGINT NOT NULL, -- postgres
    "belongs_to__application" BIGINT REFERENCES "application" ("id") ON DELETE SET NULL, -- sqlite
    "belongs_to__application" BIGINT, -- postgres
    "is_pinned_on__release" BIGINT REFERENCES "release" ("id") ON DELETE SET NULL, -- sqlite
    "is_pinned_on__release" BIGINT, -- postgres
    "should_be_operated_by__release" BIGINT REFERENCES "release" ("id") ON DELETE SET NULL, -- sqlite
    "should_be_operated_by__release" BIGINT, -- postgres
    "should_be_managed_by__release" BIGINT REFERENCES "release" ("id") ON DELETE SET NULL, -- sqlite
    "should_be_managed_by__release" BIGINT, -- postgres
    "belongs_to__user" BIGINT REFERENCES "user" ("id") ON DELETE SET NULL, -- sqlite
    "belongs_to__user" BIGINT, -- postgres
    "generation" BIGINT NOT NULL
);
CREATE TABLE "device_status" (
    "id" BIGINT PRIMARY KEY REFERENCES "device" ("id") ON DELETE CASCADE, -- sqlite
    "id" BIGINT PRIMARY KEY, -- postgres
    "is_online" BOOLEAN NOT NULL,
    "last_connectivity_event" BIGINT,
    "is_connected_to_vpn" BOOLEAN NOT NULL,
    "last_vpn_event" BIGINT,
    "is_locked_until__date" BIGINT,
    "public_address" {text},
    "ip_address" {text},
    "mac_address" {text},
    "memory_usage" BIGINT,
    "memory_total" BIGINT,
    "storage_block_device" {text},
    "storage_usage" BIGINT,
    "storage_total" BIGINT,
    "cpu_usage" BIGINT,
    "cpu_temp" BIGINT,
    "is_undervolted" BOOLEAN NOT NULL,
    "cpu_id" {text},
    "download_progress" BIGINT,
    "status" {text},
    "os_version" {text},
    "os_variant" {text},
    "supervisor_version" {text},
    "provisioning_progress" BIGINT,
    "provisioning_state" {text},
    "api_port" BIGINT,
    "api_secret" {text},
    "update_status" {text},
    "last_update_status_event" BIGINT,
    "latitude" {text},
    "longitude" {text},
    "location" {text},
    "heartbeat_expires_at" BIGINT,
    "heartbeat_since" BIGINT,
    "is_running__release" BIGINT REFERENCES "release" ("id") ON DELETE SET NULL, -- sqlite
    "is_running__release" BIGINT, -- postgres
    "is_managed_by__service_instance" BIGINT REFERENCES "service_instance" ("id") ON DELETE SET NULL -- sqlite
    "is_managed_by__service_instance" BIGINT -- postgres
);
CREATE INDEX "device_actor" ON "device" ("actor");
CREATE INDEX "device_is_of__device_type" ON "device" ("is_of__device_type");
CREATE INDEX "device_belongs_to__application" ON "device" ("belongs_to__application");
CREATE INDEX "device_status_is_running__release" ON "device_status" ("is_running__release");
CREATE INDEX "device_status_is_managed_by__service_instance" ON "device_status" ("is_managed_by__service_instance");
CREATE INDEX "device_is_pinned_on__release" ON "device" ("is_pinned_on__release");
CREATE INDEX "device_should_be_operated_by__release" ON "device" ("should_be_operated_by__release");
CREATE INDEX "device_should_be_managed_by__release" ON "device" ("should_be_managed_by__release");
CREATE INDEX "device_belongs_to__user" ON "device" ("belongs_to__user");
CREATE UNIQUE INDEX "device_unique_0" ON "device" ("uuid");

CREATE TABLE "device_environment_variable" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "value" {text} NOT NULL,
    "device" BIGINT NOT NULL REFERENCES "device" ("id") ON DELETE CASCADE -- sqlite
    "device" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "device_environment_variable_unique_0" ON "device_environment_variable" ("device", "name");

CREATE TABLE "device_config_variable" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "value" {text} NOT NULL,
    "device" BIGINT NOT NULL REFERENCES "device" ("id") ON DELETE CASCADE -- sqlite
    "device" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "device_config_variable_unique_0" ON "device_config_variable" ("device", "name");

CREATE TABLE "image_install" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "install_date" BIGINT NOT NULL,
    "download_progress" BIGINT,
    "status" {text} NOT NULL,
    "device" BIGINT NOT NULL REFERENCES "device" ("id") ON DELETE CASCADE, -- sqlite
    "device" BIGINT NOT NULL, -- postgres
    "installs__image" BIGINT NOT NULL REFERENCES "image" ("id") ON DELETE CASCADE, -- sqlite
    "installs__image" BIGINT NOT NULL, -- postgres
    "is_provided_by__release" BIGINT NOT NULL REFERENCES "release" ("id") ON DELETE CASCADE -- sqlite
    "is_provided_by__release" BIGINT NOT NULL -- postgres
);
CREATE INDEX "image_install_installs__image" ON "image_install" ("installs__image");
CREATE INDEX "image_install_is_provided_by__release" ON "image_install" ("is_provided_by__release");
CREATE UNIQUE INDEX "image_install_unique_0" ON "image_install" ("device", "installs__image");

CREATE TABLE "service_install" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "device" BIGINT NOT NULL REFERENCES "device" ("id") ON DELETE CASCADE, -- sqlite
    "device" BIGINT NOT NULL, -- postgres
    "installs__service" BIGINT NOT NULL REFERENCES "service" ("id") ON DELETE CASCADE -- sqlite
    "installs__service" BIGINT NOT NULL -- postgres
);
CREATE INDEX "service_install_installs__service" ON "service_install" ("installs__service");
CREATE UNIQUE INDEX "service_install_unique_0" ON "service_install" ("device", "installs__service");

CREATE TABLE "device_service_environment_variable" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "value" {text} NOT NULL,
    "service_install" BIGINT NOT NULL REFERENCES "service_install" ("id") ON DELETE CASCADE -- sqlite
    "service_install" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "device_service_environment_variable_unique_0" ON "device_service_environment_variable" ("service_install", "name");

CREATE TABLE "device_tag" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "tag_key" {text} NOT NULL,
    "value" {text} NOT NULL,
    "device" BIGINT NOT NULL REFERENCES "device" ("id") ON DELETE CASCADE -- sqlite
    "device" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "device_tag_unique_0" ON "device_tag" ("device", "tag_key");

CREATE TABLE "release" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "commit" {text} NOT NULL,
    "composition" {text} NOT NULL,
    "status" {text} NOT NULL,
    "source" {text} NOT NULL,
    "build_log" {text},
    "is_invalidated" BOOLEAN NOT NULL,
    "start_timestamp" BIGINT NOT NULL,
    "end_timestamp" BIGINT,
    "update_timestamp" BIGINT NOT NULL,
    "release_version" {text},
    "contract" {text},
    "is_passing_tests" BOOLEAN NOT NULL,
    "is_finalized_at__date" BIGINT,
    "phase" {text},
    "semver_major" BIGINT NOT NULL,
    "semver_minor" BIGINT NOT NULL,
    "semver_patch" BIGINT NOT NULL,
    "semver_prerelease" {text} NOT NULL,
    "semver_build" {text} NOT NULL,
    "variant" {text} NOT NULL,
    "revision" BIGINT,
    "known_issue_list" {text},
    "note" {text},
    "invalidation_reason" {text},
    "belongs_to__application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE, -- sqlite
    "belongs_to__application" BIGINT NOT NULL, -- postgres
    "is_created_by__user" BIGINT REFERENCES "user" ("id") ON DELETE SET NULL -- sqlite
    "is_created_by__user" BIGINT -- postgres
);
CREATE INDEX "release_belongs_to__application" ON "release" ("belongs_to__application");
CREATE INDEX "release_is_created_by__user" ON "release" ("is_created_by__user");
CREATE UNIQUE INDEX "release_unique_commit" ON "release" ("belongs_to__application", "commit") WHERE "status" = 'success'; -- postgres
CREATE UNIQUE INDEX "release_unique_revision" ON "release" ("belongs_to__application", "semver_major", "semver_minor", "semver_patch", "semver_prerelease", "semver_build", "variant", "revision"); -- postgres
CREATE UNIQUE INDEX "release_unique_revision" ON "release" ("belongs_to__application", "semver_major", "semver_minor", "semver_patch", "semver_prerelease", "semver_build", "variant", "revision"); -- sqlite
CREATE UNIQUE INDEX "release_unique_commit" ON "release" ("belongs_to__application", "commit") WHERE "status" = 'success'; -- sqlite

CREATE TABLE "release_tag" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "tag_key" {text} NOT NULL,
    "value" {text} NOT NULL,
    "release" BIGINT NOT NULL REFERENCES "release" ("id") ON DELETE CASCADE -- sqlite
    "release" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "release_tag_unique_0" ON "release_tag" ("release", "tag_key");

CREATE TABLE "release_image" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "image" BIGINT NOT NULL REFERENCES "image" ("id") ON DELETE CASCADE, -- sqlite
    "image" BIGINT NOT NULL, -- postgres
    "is_part_of__release" BIGINT NOT NULL REFERENCES "release" ("id") ON DELETE CASCADE -- sqlite
    "is_part_of__release" BIGINT NOT NULL -- postgres
);
CREATE INDEX "release_image_image" ON "release_image" ("image");
CREATE UNIQUE INDEX "release_image_unique_0" ON "release_image" ("is_part_of__release", "image");

CREATE TABLE "image_label" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "label_name" {text} NOT NULL,
    "value" {text} NOT NULL,
    "release_image" BIGINT NOT NULL REFERENCES "release_image" ("id") ON DELETE CASCADE -- sqlite
    "release_image" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "image_label_unique_0" ON "image_label" ("release_image", "label_name");

CREATE TABLE "image_profile" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "profile_name" {text} NOT NULL,
    "release_image" BIGINT NOT NULL REFERENCES "release_image" ("id") ON DELETE CASCADE -- sqlite
    "release_image" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "image_profile_unique_0" ON "image_profile" ("release_image", "profile_name");

CREATE TABLE "image_environment_variable" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "value" {text} NOT NULL,
    "release_image" BIGINT NOT NULL REFERENCES "release_image" ("id") ON DELETE CASCADE -- sqlite
    "release_image" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "image_environment_variable_unique_0" ON "image_environment_variable" ("release_image", "name");

CREATE TABLE "organization_membership" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "effective_seat_role" {text} NOT NULL,
    "user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE, -- sqlite
    "user" BIGINT NOT NULL, -- postgres
    "is_member_of__organization" BIGINT NOT NULL REFERENCES "organization" ("id") ON DELETE CASCADE, -- sqlite
    "is_member_of__organization" BIGINT NOT NULL, -- postgres
    "organization_membership_role" BIGINT NOT NULL REFERENCES "organization_membership_role" ("id") ON DELETE RESTRICT -- sqlite
    "organization_membership_role" BIGINT NOT NULL -- postgres
);
CREATE INDEX "organization_membership_is_member_of__organization" ON "organization_membership" ("is_member_of__organization");
CREATE INDEX "organization_membership_organization_membership_role" ON "organization_membership" ("organization_membership_role");
CREATE UNIQUE INDEX "organization_membership_unique_0" ON "organization_membership" ("user", "is_member_of__organization");

CREATE TABLE "user_public_key" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "public_key" {text} NOT NULL,
    "title" {text} NOT NULL,
    "user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE -- sqlite
    "user" BIGINT NOT NULL -- postgres
);
CREATE INDEX "user_public_key_user" ON "user_public_key" ("user");

CREATE TABLE "device_type_alias" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "is_referenced_by__alias" {text} NOT NULL,
    "device_type" BIGINT NOT NULL REFERENCES "device_type" ("id") ON DELETE RESTRICT -- sqlite
    "device_type" BIGINT NOT NULL -- postgres
);
CREATE INDEX "device_type_alias_device_type" ON "device_type_alias" ("device_type");
CREATE UNIQUE INDEX "device_type_alias_unique_0" ON "device_type_alias" ("is_referenced_by__alias");

CREATE TABLE "release_asset" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "asset_key" {text} NOT NULL,
    "asset" {text},
    "release" BIGINT NOT NULL REFERENCES "release" ("id") ON DELETE CASCADE -- sqlite
    "release" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "release_asset_unique_0" ON "release_asset" ("release", "asset_key");

CREATE TABLE "application_profile" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "activates__profile_name" {text} NOT NULL,
    "application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE, -- sqlite
    "application" BIGINT NOT NULL, -- postgres
    "on__application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE -- sqlite
    "on__application" BIGINT NOT NULL -- postgres
);
CREATE INDEX "application_profile_on__application" ON "application_profile" ("on__application");
CREATE UNIQUE INDEX "application_profile_unique_0" ON "application_profile" ("application", "on__application", "activates__profile_name");

CREATE TABLE "user__has_direct_access_to__application" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE, -- sqlite
    "user" BIGINT NOT NULL, -- postgres
    "has_direct_access_to__application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE -- sqlite
    "has_direct_access_to__application" BIGINT NOT NULL -- postgres
);
CREATE INDEX "user__has_direct_access_to__application_has_direct_access_to__application" ON "user__has_direct_access_to__application" ("has_direct_access_to__application");
CREATE UNIQUE INDEX "user__has_direct_access_to__application_unique_0" ON "user__has_direct_access_to__application" ("user", "has_direct_access_to__application");

CREATE TABLE "application_membership_role" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "description" {text} NOT NULL
);
CREATE UNIQUE INDEX "application_membership_role_unique_0" ON "application_membership_role" ("name");

CREATE TABLE "credit_bundle" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "payment_status" {text} NOT NULL,
    "unit_cost" BIGINT NOT NULL,
    "original_quantity" BIGINT NOT NULL,
    "available_balance" BIGINT NOT NULL,
    "total_cost" BIGINT NOT NULL,
    "total_balance" BIGINT NOT NULL,
    "expires_on__date" BIGINT NOT NULL,
    "is_associated_with__invoice_id" {text},
    "error_message" {text},
    "is_created_by__user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE, -- sqlite
    "is_created_by__user" BIGINT NOT NULL, -- postgres
    "is_for__feature" BIGINT NOT NULL REFERENCES "feature" ("id") ON DELETE CASCADE, -- sqlite
    "is_for__feature" BIGINT NOT NULL, -- postgres
    "belongs_to__organization" BIGINT NOT NULL REFERENCES "organization" ("id") ON DELETE CASCADE -- sqlite
    "belongs_to__organization" BIGINT NOT NULL -- postgres
);
CREATE INDEX "credit_bundle_is_created_by__user" ON "credit_bundle" ("is_created_by__user");
CREATE INDEX "credit_bundle_is_for__feature" ON "credit_bundle" ("is_for__feature");
CREATE INDEX "credit_bundle_belongs_to__organization" ON "credit_bundle" ("belongs_to__organization");

CREATE TABLE "delta" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "version" BIGINT NOT NULL,
    "status" {text} NOT NULL,
    "error_message" {text},
    "is_stored_at__location" {text},
    "size" BIGINT,
    "update_timestamp" BIGINT NOT NULL,
    "end_timestamp" BIGINT,
    "originates_from__image" BIGINT REFERENCES "image" ("id") ON DELETE SET NULL, -- sqlite
    "originates_from__image" BIGINT, -- postgres
    "produces__image" BIGINT NOT NULL REFERENCES "image" ("id") ON DELETE CASCADE -- sqlite
    "produces__image" BIGINT NOT NULL -- postgres
);
CREATE INDEX "delta_originates_from__image" ON "delta" ("originates_from__image");
CREATE INDEX "delta_produces__image" ON "delta" ("produces__image");

CREATE TABLE "feature" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "title" {text} NOT NULL,
    "slug" {text} NOT NULL,
    "billing_code" {text}
);
CREATE UNIQUE INDEX "feature_unique_0" ON "feature" ("slug");

CREATE TABLE "oauth_application" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "client_id" {text} NOT NULL,
    "redirect_uri" {text} NOT NULL,
    "description" {text}
);

CREATE TABLE "oauth_application_authorization" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "belongs_to__user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE, -- sqlite
    "belongs_to__user" BIGINT NOT NULL, -- postgres
    "is_for__oauth_application" BIGINT NOT NULL REFERENCES "oauth_application" ("id") ON DELETE CASCADE -- sqlite
    "is_for__oauth_application" BIGINT NOT NULL -- postgres
);
CREATE INDEX "oauth_application_authorization_belongs_to__user" ON "oauth_application_authorization" ("belongs_to__user");
CREATE INDEX "oauth_application_authorization_is_for__oauth_application" ON "oauth_application_authorization" ("is_for__oauth_application");

CREATE TABLE "organization_membership_role" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL
);
CREATE UNIQUE INDEX "organization_membership_role_unique_0" ON "organization_membership_role" ("name");

CREATE TABLE "plan" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "title" {text} NOT NULL,
    "billing_code" {text},
    "monthly_price" BIGINT NOT NULL,
    "annual_price" BIGINT NOT NULL,
    "can_self_serve" BOOLEAN NOT NULL,
    "is_legacy" BOOLEAN NOT NULL,
    "is_valid_from__date" BIGINT,
    "is_valid_until__date" BIGINT
);

CREATE TABLE "recovery_two_factor" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "used_timestamp" BIGINT,
    "belongs_to__user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE -- sqlite
    "belongs_to__user" BIGINT NOT NULL -- postgres
);
CREATE INDEX "recovery_two_factor_belongs_to__user" ON "recovery_two_factor" ("belongs_to__user");

CREATE TABLE "social_service_account" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "provider" {text} NOT NULL,
    "display_name" {text},
    "belongs_to__user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE -- sqlite
    "belongs_to__user" BIGINT NOT NULL -- postgres
);
CREATE INDEX "social_service_account_belongs_to__user" ON "social_service_account" ("belongs_to__user");

CREATE TABLE "subscription" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "billing_cycle" {text} NOT NULL,
    "starts_on__date" BIGINT NOT NULL,
    "ends_on__date" BIGINT,
    "is_active" BOOLEAN NOT NULL,
    "discount_percentage" DOUBLE PRECISION NOT NULL,
    "origin" {text} NOT NULL,
    "is_for__plan" BIGINT NOT NULL REFERENCES "plan" ("id") ON DELETE CASCADE, -- sqlite
    "is_for__plan" BIGINT NOT NULL, -- postgres
    "is_for__organization" BIGINT NOT NULL REFERENCES "organization" ("id") ON DELETE CASCADE -- sqlite
    "is_for__organization" BIGINT NOT NULL -- postgres
);
CREATE INDEX "subscription_is_for__plan" ON "subscription" ("is_for__plan");
CREATE INDEX "subscription_is_for__organization" ON "subscription" ("is_for__organization");

CREATE TABLE "subscription_prepaid_addon" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "discount_percentage" DOUBLE PRECISION NOT NULL,
    "quantity" BIGINT NOT NULL,
    "starts_on__date" BIGINT NOT NULL,
    "expires_on__date" BIGINT,
    "is_for__subscription" BIGINT NOT NULL REFERENCES "subscription" ("id") ON DELETE CASCADE, -- sqlite
    "is_for__subscription" BIGINT NOT NULL, -- postgres
    "is_for__plan_addon" BIGINT NOT NULL REFERENCES "plan_addon" ("id") ON DELETE CASCADE -- sqlite
    "is_for__plan_addon" BIGINT NOT NULL -- postgres
);
CREATE INDEX "subscription_prepaid_addon_is_for__subscription" ON "subscription_prepaid_addon" ("is_for__subscription");
CREATE INDEX "subscription_prepaid_addon_is_for__plan_addon" ON "subscription_prepaid_addon" ("is_for__plan_addon");

CREATE TABLE "support_tier" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "title" {text} NOT NULL,
    "slug" {text} NOT NULL,
    "includes_private_support" BOOLEAN NOT NULL,
    "includes__SLA" {text}
);
CREATE UNIQUE INDEX "support_tier_unique_0" ON "support_tier" ("slug");

CREATE TABLE "team" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "description" {text},
    "belongs_to__organization" BIGINT NOT NULL REFERENCES "organization" ("id") ON DELETE CASCADE -- sqlite
    "belongs_to__organization" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "team_unique_0" ON "team" ("belongs_to__organization", "name");

CREATE TABLE "invitee" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "email" {text} NOT NULL
);
CREATE UNIQUE INDEX "invitee_unique_0" ON "invitee" ("email");

CREATE TABLE "support_feature" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "feature" BIGINT NOT NULL REFERENCES "feature" ("id") ON DELETE CASCADE, -- sqlite
    "feature" BIGINT NOT NULL, -- postgres
    "support_tier" BIGINT NOT NULL REFERENCES "support_tier" ("id") ON DELETE CASCADE -- sqlite
    "support_tier" BIGINT NOT NULL -- postgres
);
CREATE INDEX "support_feature_feature" ON "support_feature" ("feature");
CREATE INDEX "support_feature_support_tier" ON "support_feature" ("support_tier");

CREATE TABLE "team_application_access" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "team" BIGINT NOT NULL REFERENCES "team" ("id") ON DELETE CASCADE, -- sqlite
    "team" BIGINT NOT NULL, -- postgres
    "grants_access_to__application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE, -- sqlite
    "grants_access_to__application" BIGINT NOT NULL, -- postgres
    "application_membership_role" BIGINT NOT NULL REFERENCES "application_membership_role" ("id") ON DELETE RESTRICT -- sqlite
    "application_membership_role" BIGINT NOT NULL -- postgres
);
CREATE INDEX "team_application_access_grants_access_to__application" ON "team_application_access" ("grants_access_to__application");
CREATE INDEX "team_application_access_application_membership_role" ON "team_application_access" ("application_membership_role");
CREATE UNIQUE INDEX "team_application_access_unique_0" ON "team_application_access" ("team", "grants_access_to__application");

CREATE TABLE "team_membership" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE, -- sqlite
    "user" BIGINT NOT NULL, -- postgres
    "is_member_of__team" BIGINT NOT NULL REFERENCES "team" ("id") ON DELETE CASCADE -- sqlite
    "is_member_of__team" BIGINT NOT NULL -- postgres
);
CREATE INDEX "team_membership_is_member_of__team" ON "team_membership" ("is_member_of__team");
CREATE UNIQUE INDEX "team_membership_unique_0" ON "team_membership" ("user", "is_member_of__team");

CREATE TABLE "user_application_membership" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE, -- sqlite
    "user" BIGINT NOT NULL, -- postgres
    "is_member_of__application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE, -- sqlite
    "is_member_of__application" BIGINT NOT NULL, -- postgres
    "application_membership_role" BIGINT NOT NULL REFERENCES "application_membership_role" ("id") ON DELETE RESTRICT -- sqlite
    "application_membership_role" BIGINT NOT NULL -- postgres
);
CREATE INDEX "user_application_membership_is_member_of__application" ON "user_application_membership" ("is_member_of__application");
CREATE INDEX "user_application_membership_application_membership_role" ON "user_application_membership" ("application_membership_role");
CREATE UNIQUE INDEX "user_application_membership_unique_0" ON "user_application_membership" ("user", "is_member_of__application");

CREATE TABLE "application_invite" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "message" {text},
    "invitee" BIGINT NOT NULL REFERENCES "invitee" ("id") ON DELETE CASCADE, -- sqlite
    "invitee" BIGINT NOT NULL, -- postgres
    "is_invited_to__application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE, -- sqlite
    "is_invited_to__application" BIGINT NOT NULL, -- postgres
    "application_membership_role" BIGINT NOT NULL REFERENCES "application_membership_role" ("id") ON DELETE RESTRICT, -- sqlite
    "application_membership_role" BIGINT NOT NULL, -- postgres
    "is_created_by__user" BIGINT REFERENCES "user" ("id") ON DELETE SET NULL -- sqlite
    "is_created_by__user" BIGINT -- postgres
);
CREATE INDEX "application_invite_invitee" ON "application_invite" ("invitee");
CREATE INDEX "application_invite_is_invited_to__application" ON "application_invite" ("is_invited_to__application");
CREATE INDEX "application_invite_application_membership_role" ON "application_invite" ("application_membership_role");
CREATE INDEX "application_invite_is_created_by__user" ON "application_invite" ("is_created_by__user");

CREATE TABLE "organization_invite" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "message" {text},
    "invitee" BIGINT NOT NULL REFERENCES "invitee" ("id") ON DELETE CASCADE, -- sqlite
    "invitee" BIGINT NOT NULL, -- postgres
    "is_invited_to__organization" BIGINT NOT NULL REFERENCES "organization" ("id") ON DELETE CASCADE, -- sqlite
    "is_invited_to__organization" BIGINT NOT NULL, -- postgres
    "organization_membership_role" BIGINT NOT NULL REFERENCES "organization_membership_role" ("id") ON DELETE RESTRICT, -- sqlite
    "organization_membership_role" BIGINT NOT NULL, -- postgres
    "is_created_by__user" BIGINT REFERENCES "user" ("id") ON DELETE SET NULL -- sqlite
    "is_created_by__user" BIGINT -- postgres
);
CREATE INDEX "organization_invite_invitee" ON "organization_invite" ("invitee");
CREATE INDEX "organization_invite_is_invited_to__organization" ON "organization_invite" ("is_invited_to__organization");
CREATE INDEX "organization_invite_organization_membership_role" ON "organization_invite" ("organization_membership_role");
CREATE INDEX "organization_invite_is_created_by__user" ON "organization_invite" ("is_created_by__user");

CREATE TABLE "device_domain_mapping" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "fqdn" {text} NOT NULL,
    "device" BIGINT NOT NULL REFERENCES "device" ("id") ON DELETE CASCADE -- sqlite
    "device" BIGINT NOT NULL -- postgres
);
CREATE INDEX "device_domain_mapping_device" ON "device_domain_mapping" ("device");
CREATE UNIQUE INDEX "device_domain_mapping_unique_0" ON "device_domain_mapping" ("fqdn");

CREATE TABLE "application_domain_mapping" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "domain" {text} NOT NULL,
    "application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE -- sqlite
    "application" BIGINT NOT NULL -- postgres
);
CREATE INDEX "application_domain_mapping_application" ON "application_domain_mapping" ("application");
CREATE UNIQUE INDEX "application_domain_mapping_unique_0" ON "application_domain_mapping" ("domain");

CREATE TABLE "build_environment_variable" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "name" {text} NOT NULL,
    "value" {text} NOT NULL,
    "application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE -- sqlite
    "application" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "build_environment_variable_unique_0" ON "build_environment_variable" ("application", "name");

CREATE TABLE "organization__has_private_access_to__device_type" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "organization" BIGINT NOT NULL REFERENCES "organization" ("id") ON DELETE CASCADE, -- sqlite
    "organization" BIGINT NOT NULL, -- postgres
    "has_private_access_to__device_type" BIGINT NOT NULL REFERENCES "device_type" ("id") ON DELETE RESTRICT -- sqlite
    "has_private_access_to__device_type" BIGINT NOT NULL -- postgres
);
CREATE INDEX "organization__has_private_access_to__device_type_has_private_access_to__device_type" ON "organization__has_private_access_to__device_type" ("has_private_access_to__device_type");
CREATE UNIQUE INDEX "organization__has_private_access_to__device_type_unique_0" ON "organization__has_private_access_to__device_type" ("organization", "has_private_access_to__device_type");

CREATE TABLE "organization_membership_tag" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "tag_key" {text} NOT NULL,
    "value" {text} NOT NULL,
    "organization_membership" BIGINT NOT NULL REFERENCES "organization_membership" ("id") ON DELETE CASCADE -- sqlite
    "organization_membership" BIGINT NOT NULL -- postgres
);
CREATE UNIQUE INDEX "organization_membership_tag_unique_0" ON "organization_membership_tag" ("organization_membership", "tag_key");

CREATE TABLE "organization_credit_notification" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "is_sent_when_below__threshold" BIGINT NOT NULL,
    "organization" BIGINT NOT NULL REFERENCES "organization" ("id") ON DELETE CASCADE, -- sqlite
    "organization" BIGINT NOT NULL, -- postgres
    "owns_credit_notification_for__feature" BIGINT NOT NULL REFERENCES "feature" ("id") ON DELETE CASCADE -- sqlite
    "owns_credit_notification_for__feature" BIGINT NOT NULL -- postgres
);
CREATE INDEX "organization_credit_notification_owns_credit_notification_for__feature" ON "organization_credit_notification" ("owns_credit_notification_for__feature");
CREATE UNIQUE INDEX "organization_credit_notification_unique_0" ON "organization_credit_notification" ("organization", "owns_credit_notification_for__feature", "is_sent_when_below__threshold");

CREATE TABLE "plan__has__discount_code" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "discount_code" {text} NOT NULL,
    "plan" BIGINT NOT NULL REFERENCES "plan" ("id") ON DELETE CASCADE -- sqlite
    "plan" BIGINT NOT NULL -- postgres
);
CREATE INDEX "plan__has__discount_code_plan" ON "plan__has__discount_code" ("plan");

CREATE TABLE "plan_feature" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "quantity" BIGINT NOT NULL,
    "plan" BIGINT NOT NULL REFERENCES "plan" ("id") ON DELETE CASCADE, -- sqlite
    "plan" BIGINT NOT NULL, -- postgres
    "provides__feature" BIGINT NOT NULL REFERENCES "feature" ("id") ON DELETE CASCADE -- sqlite
    "provides__feature" BIGINT NOT NULL -- postgres
);
CREATE INDEX "plan_feature_plan" ON "plan_feature" ("plan");
CREATE INDEX "plan_feature_provides__feature" ON "plan_feature" ("provides__feature");

CREATE TABLE "plan_addon" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "base_price" BIGINT NOT NULL,
    "can_self_serve" BOOLEAN NOT NULL,
    "bills_dynamically" BOOLEAN NOT NULL,
    "plan" BIGINT NOT NULL REFERENCES "plan" ("id") ON DELETE CASCADE, -- sqlite
    "plan" BIGINT NOT NULL, -- postgres
    "offers__feature" BIGINT NOT NULL REFERENCES "feature" ("id") ON DELETE CASCADE -- sqlite
    "offers__feature" BIGINT NOT NULL -- postgres
);
CREATE INDEX "plan_addon_plan" ON "plan_addon" ("plan");
CREATE INDEX "plan_addon_offers__feature" ON "plan_addon" ("offers__feature");

CREATE TABLE "subscription_addon_discount" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "discount_percentage" DOUBLE PRECISION NOT NULL,
    "subscription" BIGINT NOT NULL REFERENCES "subscription" ("id") ON DELETE CASCADE, -- sqlite
    "subscription" BIGINT NOT NULL, -- postgres
    "discounts__plan_addon" BIGINT NOT NULL REFERENCES "plan_addon" ("id") ON DELETE CASCADE -- sqlite
    "discounts__plan_addon" BIGINT NOT NULL -- postgres
);
CREATE INDEX "subscription_addon_discount_subscription" ON "subscription_addon_discount" ("subscription");
CREATE INDEX "subscription_addon_discount_discounts__plan_addon" ON "subscription_addon_discount" ("discounts__plan_addon");

CREATE TABLE "identity_provider" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "sso_identifier" {text} NOT NULL,
    "entry_point" {text} NOT NULL,
    "issuer" {text} NOT NULL,
    "certificate" {text} NOT NULL,
    "requires_signed_authn_response" BOOLEAN NOT NULL
);

CREATE TABLE "saml_account" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "remote_id" {text} NOT NULL,
    "display_name" {text},
    "belongs_to__user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE, -- sqlite
    "belongs_to__user" BIGINT NOT NULL, -- postgres
    "was_generated_by__identity_provider" BIGINT NOT NULL REFERENCES "identity_provider" ("id") ON DELETE CASCADE -- sqlite
    "was_generated_by__identity_provider" BIGINT NOT NULL -- postgres
);
CREATE INDEX "saml_account_belongs_to__user" ON "saml_account" ("belongs_to__user");
CREATE INDEX "saml_account_was_generated_by__identity_provider" ON "saml_account" ("was_generated_by__identity_provider");

CREATE TABLE "identity_provider_membership" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "organization" BIGINT NOT NULL REFERENCES "organization" ("id") ON DELETE CASCADE, -- sqlite
    "organization" BIGINT NOT NULL, -- postgres
    "is_authorized_by__identity_provider" BIGINT NOT NULL REFERENCES "identity_provider" ("id") ON DELETE CASCADE, -- sqlite
    "is_authorized_by__identity_provider" BIGINT NOT NULL, -- postgres
    "grants_access_to__team" BIGINT REFERENCES "team" ("id") ON DELETE SET NULL -- sqlite
    "grants_access_to__team" BIGINT -- postgres
);
CREATE INDEX "identity_provider_membership_is_authorized_by__identity_provider" ON "identity_provider_membership" ("is_authorized_by__identity_provider");
CREATE INDEX "identity_provider_membership_grants_access_to__team" ON "identity_provider_membership" ("grants_access_to__team");
CREATE UNIQUE INDEX "identity_provider_membership_unique_0" ON "identity_provider_membership" ("organization", "is_authorized_by__identity_provider");

CREATE TABLE "device_history" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "end_timestamp" BIGINT,
    "uuid" {text},
    "is_active" BOOLEAN NOT NULL,
    "os_version" {text},
    "os_variant" {text},
    "supervisor_version" {text},
    "cpu_id" {text},
    "is_created_by__actor" BIGINT REFERENCES "actor" ("id") ON DELETE SET NULL, -- sqlite
    "is_created_by__actor" BIGINT, -- postgres
    "is_ended_by__actor" BIGINT REFERENCES "actor" ("id") ON DELETE SET NULL, -- sqlite
    "is_ended_by__actor" BIGINT, -- postgres
    "tracks__device" BIGINT REFERENCES "device" ("id") ON DELETE SET NULL, -- sqlite
    "tracks__device" BIGINT, -- postgres
    "tracks__actor" BIGINT REFERENCES "actor" ("id") ON DELETE SET NULL, -- sqlite
    "tracks__actor" BIGINT, -- postgres
    "belongs_to__application" BIGINT REFERENCES "application" ("id") ON DELETE SET NULL, -- sqlite
    "belongs_to__application" BIGINT, -- postgres
    "is_running__release" BIGINT REFERENCES "release" ("id") ON DELETE SET NULL, -- sqlite
    "is_running__release" BIGINT, -- postgres
    "is_pinned_on__release" BIGINT REFERENCES "release" ("id") ON DELETE SET NULL, -- sqlite
    "is_pinned_on__release" BIGINT, -- postgres
    "is_managed_by__service_instance" BIGINT REFERENCES "service_instance" ("id") ON DELETE SET NULL, -- sqlite
    "is_managed_by__service_instance" BIGINT, -- postgres
    "is_of__device_type" BIGINT REFERENCES "device_type" ("id") ON DELETE SET NULL, -- sqlite
    "is_of__device_type" BIGINT, -- postgres
    "should_be_managed_by__release" BIGINT REFERENCES "release" ("id") ON DELETE SET NULL -- sqlite
    "should_be_managed_by__release" BIGINT -- postgres
);
CREATE INDEX "device_history_is_created_by__actor" ON "device_history" ("is_created_by__actor");
CREATE INDEX "device_history_is_ended_by__actor" ON "device_history" ("is_ended_by__actor");
CREATE INDEX "device_history_tracks__device" ON "device_history" ("tracks__device");
CREATE INDEX "device_history_tracks__actor" ON "device_history" ("tracks__actor");
CREATE INDEX "device_history_belongs_to__application" ON "device_history" ("belongs_to__application");
CREATE INDEX "device_history_is_running__release" ON "device_history" ("is_running__release");
CREATE INDEX "device_history_is_pinned_on__release" ON "device_history" ("is_pinned_on__release");
CREATE INDEX "device_history_is_managed_by__service_instance" ON "device_history" ("is_managed_by__service_instance");
CREATE INDEX "device_history_is_of__device_type" ON "device_history" ("is_of__device_type");
CREATE INDEX "device_history_should_be_managed_by__release" ON "device_history" ("should_be_managed_by__release");

CREATE TABLE "application__can_use__application_as_host" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "application" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE, -- sqlite
    "application" BIGINT NOT NULL, -- postgres
    "can_use__application_as_host" BIGINT NOT NULL REFERENCES "application" ("id") ON DELETE CASCADE -- sqlite
    "can_use__application_as_host" BIGINT NOT NULL -- postgres
);
CREATE INDEX "application__can_use__application_as_host_can_use__application_as_host" ON "application__can_use__application_as_host" ("can_use__application_as_host");
CREATE UNIQUE INDEX "application__can_use__application_as_host_unique_0" ON "application__can_use__application_as_host" ("application", "can_use__application_as_host");

CREATE TABLE "user_profile" (
    "id" {serial},
    "created_at" BIGINT NOT NULL,
    "modified_at" BIGINT NOT NULL,
    "email" {text},
    "has_disabled_newsletter" BOOLEAN NOT NULL,
    "is_verified" BOOLEAN NOT NULL,
    "must_be_verified" BOOLEAN NOT NULL,
    "first_name" {text},
    "last_name" {text},
    "account_type" {text},
    "has_password_set" BOOLEAN NOT NULL,
    "company" {text},
    "is_of__user" BIGINT NOT NULL REFERENCES "user" ("id") ON DELETE CASCADE -- sqlite
    "is_of__user" BIGINT NOT NULL -- postgres
);
CREATE INDEX "user_profile_is_of__user" ON "user_profile" ("is_of__user");

ALTER TABLE "role__has__permission" ADD FOREIGN KEY ("role") REFERENCES "role" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "role__has__permission" ADD FOREIGN KEY ("permission") REFERENCES "permission" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "user" ADD FOREIGN KEY ("actor") REFERENCES "actor" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "user" ADD FOREIGN KEY ("has_legacy_link_to__organization") REFERENCES "organization" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "user_role" ADD FOREIGN KEY ("user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "user_role" ADD FOREIGN KEY ("role") REFERENCES "role" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "user_permission" ADD FOREIGN KEY ("user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "user_permission" ADD FOREIGN KEY ("permission") REFERENCES "permission" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "api_key" ADD FOREIGN KEY ("is_of__actor") REFERENCES "actor" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "api_key__has__role" ADD FOREIGN KEY ("api_key") REFERENCES "api_key" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "api_key__has__role" ADD FOREIGN KEY ("role") REFERENCES "role" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "api_key__has__permission" ADD FOREIGN KEY ("api_key") REFERENCES "api_key" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "api_key__has__permission" ADD FOREIGN KEY ("permission") REFERENCES "permission" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "device_family" ADD FOREIGN KEY ("is_manufactured_by__device_manufacturer") REFERENCES "device_manufacturer" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_type" ADD FOREIGN KEY ("is_of__cpu_architecture") REFERENCES "cpu_architecture" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "device_type" ADD FOREIGN KEY ("belongs_to__device_family") REFERENCES "device_family" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "image" ADD FOREIGN KEY ("is_a_build_of__service") REFERENCES "service" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "application" ADD FOREIGN KEY ("actor") REFERENCES "actor" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "application" ADD FOREIGN KEY ("organization") REFERENCES "organization" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "application" ADD FOREIGN KEY ("is_for__device_type") REFERENCES "device_type" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "application" ADD FOREIGN KEY ("should_be_running__release") REFERENCES "release" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "application" ADD FOREIGN KEY ("application_type") REFERENCES "application_type" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "application" ADD FOREIGN KEY ("is_updated_by__application") REFERENCES "application" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "application_environment_variable" ADD FOREIGN KEY ("application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "application_config_variable" ADD FOREIGN KEY ("application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "service" ADD FOREIGN KEY ("application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "service_label" ADD FOREIGN KEY ("service") REFERENCES "service" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "service_environment_variable" ADD FOREIGN KEY ("service") REFERENCES "service" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "application_tag" ADD FOREIGN KEY ("application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "device" ADD FOREIGN KEY ("actor") REFERENCES "actor" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "device" ADD FOREIGN KEY ("is_of__device_type") REFERENCES "device_type" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "device" ADD FOREIGN KEY ("belongs_to__application") REFERENCES "application" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device" ADD FOREIGN KEY ("is_pinned_on__release") REFERENCES "release" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device" ADD FOREIGN KEY ("should_be_operated_by__release") REFERENCES "release" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device" ADD FOREIGN KEY ("should_be_managed_by__release") REFERENCES "release" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device" ADD FOREIGN KEY ("belongs_to__user") REFERENCES "user" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_status" ADD FOREIGN KEY ("id") REFERENCES "device" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "device_status" ADD FOREIGN KEY ("is_running__release") REFERENCES "release" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_status" ADD FOREIGN KEY ("is_managed_by__service_instance") REFERENCES "service_instance" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_environment_variable" ADD FOREIGN KEY ("device") REFERENCES "device" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "device_config_variable" ADD FOREIGN KEY ("device") REFERENCES "device" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "image_install" ADD FOREIGN KEY ("device") REFERENCES "device" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "image_install" ADD FOREIGN KEY ("installs__image") REFERENCES "image" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "image_install" ADD FOREIGN KEY ("is_provided_by__release") REFERENCES "release" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "service_install" ADD FOREIGN KEY ("device") REFERENCES "device" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "service_install" ADD FOREIGN KEY ("installs__service") REFERENCES "service" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "device_service_environment_variable" ADD FOREIGN KEY ("service_install") REFERENCES "service_install" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "device_tag" ADD FOREIGN KEY ("device") REFERENCES "device" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "release" ADD FOREIGN KEY ("belongs_to__application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "release" ADD FOREIGN KEY ("is_created_by__user") REFERENCES "user" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "release_tag" ADD FOREIGN KEY ("release") REFERENCES "release" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "release_image" ADD FOREIGN KEY ("image") REFERENCES "image" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "release_image" ADD FOREIGN KEY ("is_part_of__release") REFERENCES "release" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "image_label" ADD FOREIGN KEY ("release_image") REFERENCES "release_image" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "image_profile" ADD FOREIGN KEY ("release_image") REFERENCES "release_image" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "image_environment_variable" ADD FOREIGN KEY ("release_image") REFERENCES "release_image" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "organization_membership" ADD FOREIGN KEY ("user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "organization_membership" ADD FOREIGN KEY ("is_member_of__organization") REFERENCES "organization" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "organization_membership" ADD FOREIGN KEY ("organization_membership_role") REFERENCES "organization_membership_role" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "user_public_key" ADD FOREIGN KEY ("user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "device_type_alias" ADD FOREIGN KEY ("device_type") REFERENCES "device_type" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "release_asset" ADD FOREIGN KEY ("release") REFERENCES "release" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "application_profile" ADD FOREIGN KEY ("application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "application_profile" ADD FOREIGN KEY ("on__application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "user__has_direct_access_to__application" ADD FOREIGN KEY ("user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "user__has_direct_access_to__application" ADD FOREIGN KEY ("has_direct_access_to__application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "credit_bundle" ADD FOREIGN KEY ("is_created_by__user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "credit_bundle" ADD FOREIGN KEY ("is_for__feature") REFERENCES "feature" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "credit_bundle" ADD FOREIGN KEY ("belongs_to__organization") REFERENCES "organization" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "delta" ADD FOREIGN KEY ("originates_from__image") REFERENCES "image" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "delta" ADD FOREIGN KEY ("produces__image") REFERENCES "image" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "oauth_application_authorization" ADD FOREIGN KEY ("belongs_to__user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "oauth_application_authorization" ADD FOREIGN KEY ("is_for__oauth_application") REFERENCES "oauth_application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "recovery_two_factor" ADD FOREIGN KEY ("belongs_to__user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "social_service_account" ADD FOREIGN KEY ("belongs_to__user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "subscription" ADD FOREIGN KEY ("is_for__plan") REFERENCES "plan" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "subscription" ADD FOREIGN KEY ("is_for__organization") REFERENCES "organization" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "subscription_prepaid_addon" ADD FOREIGN KEY ("is_for__subscription") REFERENCES "subscription" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "subscription_prepaid_addon" ADD FOREIGN KEY ("is_for__plan_addon") REFERENCES "plan_addon" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "team" ADD FOREIGN KEY ("belongs_to__organization") REFERENCES "organization" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "support_feature" ADD FOREIGN KEY ("feature") REFERENCES "feature" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "support_feature" ADD FOREIGN KEY ("support_tier") REFERENCES "support_tier" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "team_application_access" ADD FOREIGN KEY ("team") REFERENCES "team" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "team_application_access" ADD FOREIGN KEY ("grants_access_to__application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "team_application_access" ADD FOREIGN KEY ("application_membership_role") REFERENCES "application_membership_role" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "team_membership" ADD FOREIGN KEY ("user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "team_membership" ADD FOREIGN KEY ("is_member_of__team") REFERENCES "team" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "user_application_membership" ADD FOREIGN KEY ("user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "user_application_membership" ADD FOREIGN KEY ("is_member_of__application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "user_application_membership" ADD FOREIGN KEY ("application_membership_role") REFERENCES "application_membership_role" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "application_invite" ADD FOREIGN KEY ("invitee") REFERENCES "invitee" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "application_invite" ADD FOREIGN KEY ("is_invited_to__application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "application_invite" ADD FOREIGN KEY ("application_membership_role") REFERENCES "application_membership_role" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "application_invite" ADD FOREIGN KEY ("is_created_by__user") REFERENCES "user" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "organization_invite" ADD FOREIGN KEY ("invitee") REFERENCES "invitee" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "organization_invite" ADD FOREIGN KEY ("is_invited_to__organization") REFERENCES "organization" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "organization_invite" ADD FOREIGN KEY ("organization_membership_role") REFERENCES "organization_membership_role" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "organization_invite" ADD FOREIGN KEY ("is_created_by__user") REFERENCES "user" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_domain_mapping" ADD FOREIGN KEY ("device") REFERENCES "device" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "application_domain_mapping" ADD FOREIGN KEY ("application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "build_environment_variable" ADD FOREIGN KEY ("application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "organization__has_private_access_to__device_type" ADD FOREIGN KEY ("organization") REFERENCES "organization" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "organization__has_private_access_to__device_type" ADD FOREIGN KEY ("has_private_access_to__device_type") REFERENCES "device_type" ("id") ON DELETE RESTRICT; -- postgres
ALTER TABLE "organization_membership_tag" ADD FOREIGN KEY ("organization_membership") REFERENCES "organization_membership" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "organization_credit_notification" ADD FOREIGN KEY ("organization") REFERENCES "organization" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "organization_credit_notification" ADD FOREIGN KEY ("owns_credit_notification_for__feature") REFERENCES "feature" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "plan__has__discount_code" ADD FOREIGN KEY ("plan") REFERENCES "plan" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "plan_feature" ADD FOREIGN KEY ("plan") REFERENCES "plan" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "plan_feature" ADD FOREIGN KEY ("provides__feature") REFERENCES "feature" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "plan_addon" ADD FOREIGN KEY ("plan") REFERENCES "plan" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "plan_addon" ADD FOREIGN KEY ("offers__feature") REFERENCES "feature" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "subscription_addon_discount" ADD FOREIGN KEY ("subscription") REFERENCES "subscription" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "subscription_addon_discount" ADD FOREIGN KEY ("discounts__plan_addon") REFERENCES "plan_addon" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "saml_account" ADD FOREIGN KEY ("belongs_to__user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "saml_account" ADD FOREIGN KEY ("was_generated_by__identity_provider") REFERENCES "identity_provider" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "identity_provider_membership" ADD FOREIGN KEY ("organization") REFERENCES "organization" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "identity_provider_membership" ADD FOREIGN KEY ("is_authorized_by__identity_provider") REFERENCES "identity_provider" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "identity_provider_membership" ADD FOREIGN KEY ("grants_access_to__team") REFERENCES "team" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_history" ADD FOREIGN KEY ("is_created_by__actor") REFERENCES "actor" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_history" ADD FOREIGN KEY ("is_ended_by__actor") REFERENCES "actor" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_history" ADD FOREIGN KEY ("tracks__device") REFERENCES "device" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_history" ADD FOREIGN KEY ("tracks__actor") REFERENCES "actor" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_history" ADD FOREIGN KEY ("belongs_to__application") REFERENCES "application" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_history" ADD FOREIGN KEY ("is_running__release") REFERENCES "release" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_history" ADD FOREIGN KEY ("is_pinned_on__release") REFERENCES "release" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_history" ADD FOREIGN KEY ("is_managed_by__service_instance") REFERENCES "service_instance" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_history" ADD FOREIGN KEY ("is_of__device_type") REFERENCES "device_type" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "device_history" ADD FOREIGN KEY ("should_be_managed_by__release") REFERENCES "release" ("id") ON DELETE SET NULL; -- postgres
ALTER TABLE "application__can_use__application_as_host" ADD FOREIGN KEY ("application") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "application__can_use__application_as_host" ADD FOREIGN KEY ("can_use__application_as_host") REFERENCES "application" ("id") ON DELETE CASCADE; -- postgres
ALTER TABLE "user_profile" ADD FOREIGN KEY ("is_of__user") REFERENCES "user" ("id") ON DELETE CASCADE; -- postgres

-- What anybody may see of organizations, and of the devices of public fleets.
CREATE VIEW "public_organization" AS
SELECT "id", "created_at", "modified_at", "name", "handle" FROM "organization";
CREATE VIEW "public_device" AS
SELECT d."id", d."created_at", d."modified_at", s."latitude", s."longitude",
    s."is_online" AS "was_recently_online", d."is_of__device_type", d."belongs_to__application"
FROM "device" d
JOIN "device_status" s ON s."id" = d."id"
JOIN "application" a ON a."id" = d."belongs_to__application"
WHERE a."is_public";
