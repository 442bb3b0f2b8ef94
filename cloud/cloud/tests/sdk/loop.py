"""The official Python SDK against a real server: what a script does with a fleet.

Environment: MINKE_URL, MINKE_EMAIL, MINKE_PASSWORD, MINKE_HOME (a directory for the SDK's settings).
Ends with 0 and the line "done" when every step was as the SDK's own documentation says.
"""

import configparser
import datetime
import json
import os
import sys
import threading
import traceback
import urllib.request

URL = os.environ["MINKE_URL"]
HOME = os.environ["MINKE_HOME"]


def write_settings():
    """The SDK's own settings file names the server; without one it is https://api.HOST."""
    settings = configparser.ConfigParser()
    settings["Settings"] = {
        "balena_host": "localhost",
        "api_endpoint": f"{URL}/",
        "pine_endpoint": f"{URL}/v7/",
        "builder_url": f"{URL}/",
        "api_version": "v7",
        "device_actions_endpoint_version": "v1",
        "data_directory": HOME,
        "cache_directory": os.path.join(HOME, "cache"),
        "image_cache_time": "604800000",
        "token_refresh_interval": "3600000",
        "timeout": "30000",
        "retry_rate_limited_request": "false",
    }
    os.makedirs(HOME, exist_ok=True)
    with open(os.path.join(HOME, "balena.cfg"), "w") as file:
        settings.write(file)


write_settings()

from balena import Balena, exceptions  # noqa: E402

balena = Balena({"data_directory": HOME})
models = balena.models


def step(name):
    """Runs a function at once; what it gives takes its name."""

    def run(work):
        try:
            result = work()
        except Exception:
            print(f"FAILED {name}: {traceback.format_exc()}", flush=True)
            os._exit(1)
        print(f"ok {name}", flush=True)
        return result

    return run


def equal(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


def refused(error, work, *arguments, **named):
    try:
        found = work(*arguments, **named)
    except error as caught:
        return caught
    raise AssertionError(f"{work.__name__} gave {found!r}, not {error.__name__}")


def as_device(key, method, path, body):
    """A request as a device makes it."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(f"{URL}{path}", json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read()


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


@step("log in")
def me():
    wrong = {"username": os.environ["MINKE_EMAIL"], "password": "not the password"}
    refused(exceptions.LoginFailed, balena.auth.login, **wrong)
    equal(balena.auth.is_logged_in(), False)
    balena.auth.login(username=os.environ["MINKE_EMAIL"], password=os.environ["MINKE_PASSWORD"])
    equal(balena.auth.is_logged_in(), True)
    equal(balena.auth.whoami()["actorType"], "user")
    info = balena.auth.get_user_info()
    equal(info["email"], os.environ["MINKE_EMAIL"])
    return info


@step("organizations")
def organization():
    mine = models.organization.get_all()
    equal(len(mine), 1)
    made = models.organization.create("Second")
    equal(models.organization.get(made["id"])["name"], "Second")
    models.organization.remove(made["id"])
    return mine[0]


@step("device types")
def device_types():
    equal(models.device_type.get_slug_by_name("QEMU X86 64bit"), "qemux86-64")
    equal(models.device_type.get("qemux86-64")["name"], "QEMU X86 64bit")
    assert models.config.get_all(), "no configuration"


@step("make a fleet")
def fleet():
    made = models.application.create("Weather", "qemux86-64", organization["handle"])
    refused(exceptions.RequestError, models.application.create, "Weather", "qemux86-64", organization["handle"])
    equal(made["slug"], f"{organization['handle']}/weather")
    equal([one["slug"] for one in models.application.get_all_directly_accessible()], [made["slug"]])
    equal(models.application.get(made["slug"])["id"], made["id"])
    equal(models.application.get_by_name("Weather")["id"], made["id"])
    equal(models.application.has("nobody/nothing"), False)
    refused(exceptions.ApplicationNotFound, models.application.get, "nobody/nothing")
    return made


@step("register a device")
def device():
    assert isinstance(models.application.generate_provisioning_key(fleet["slug"]), str)
    uuid = models.device.generate_uuid()
    made = models.device.register(fleet["slug"], uuid)
    equal(made["uuid"], uuid)
    equal([one["uuid"] for one in models.device.get_all_by_application(fleet["slug"])], [uuid])
    equal(models.device.is_online(uuid), False)
    equal(models.device.get_application_name(uuid), "Weather")
    models.device.rename(uuid, "roof")
    equal(len(models.device.get_by_name("roof")), 1)
    models.device.set_note(uuid, "by the chimney")
    equal(models.device.get(uuid)["note"], "by the chimney")
    refused(exceptions.DeviceNotFound, models.device.get, models.device.generate_uuid())
    return {"id": made["id"], "uuid": uuid, "key": made["api_key"]}


@step("record a release as a deploy does")
def release():
    composition = {"version": "2.1", "networks": {}, "volumes": {}, "services": {"main": {"image": "x"}}}
    row = {
        "is_created_by__user": me["id"],
        "belongs_to__application": fleet["id"],
        "composition": composition,
        "commit": "0123456789abcdef0123456789abcdef",
        "status": "running",
        "source": "local",
        "start_timestamp": now(),
        "is_final": False,
    }
    made = balena.pine.post({"resource": "release", "body": row})
    service = balena.pine.post(
        {"resource": "service", "body": {"application": fleet["id"], "service_name": "main"}}
    )
    image = balena.pine.post(
        {
            "resource": "image",
            "body": {"is_a_build_of__service": service["id"], "status": "success", "start_timestamp": now()},
        }
    )
    place = {"image": image["id"], "is_part_of__release": made["id"]}
    balena.pine.post({"resource": "image__is_part_of__release", "body": place})
    balena.pine.patch({"resource": "image", "id": image["id"], "body": {"build_log": "built"}})
    done = {"status": "success", "end_timestamp": now()}
    balena.pine.patch({"resource": "release", "id": made["id"], "body": done})
    return {
        "id": made["id"],
        "commit": made["commit"],
        "image": image["id"],
        "location": image["is_stored_at__image_location"],
        "service": service["id"],
    }


@step("read releases")
def releases():
    equal(models.release.get(release["commit"])["id"], release["id"])
    equal([one["commit"] for one in models.release.get_all_by_application(fleet["slug"])], [release["commit"]])
    models.release.finalize(release["id"])
    equal(models.release.get(release["id"])["is_final"], True)
    equal(models.release.get_latest_by_application(fleet["slug"])["id"], release["id"])
    equal(models.release.get_with_image_details(release["id"])["images"][0]["service_name"], "main")
    equal(models.image.get_logs(release["image"]), "built")
    models.release.set_note(release["id"], "first")
    models.release.tags.set(release["id"], "stage", "one")
    models.release.tags.set(release["id"], "stage", "two")
    tags = models.release.tags.get_all_by_release(release["id"])
    equal([(tag["tag_key"], tag["value"]) for tag in tags], [("stage", "two")])
    equal(models.application.get_target_release_hash(fleet["slug"]), release["commit"])
    services = models.service.get_all_by_application(fleet["slug"])
    equal([one["service_name"] for one in services], ["main"])


@step("variables")
def variables():
    for model, parent in [
        (models.application.env_var, fleet["slug"]),
        (models.application.build_var, fleet["slug"]),
        (models.device.env_var, device["uuid"]),
        (models.service.var, release["service"]),
    ]:
        model.set(parent, "PLACE", "roof")
        model.set(parent, "PLACE", "cellar")
        equal(model.get(parent, "PLACE"), "cellar")
        model.set(parent, "OTHER", "1")
        model.remove(parent, "OTHER")
        equal(model.get(parent, "OTHER"), None)
    models.device.config_var.set(device["uuid"], "BALENA_HOST_CONFIG_gpu_mem", "16")
    equal(models.device.config_var.get(device["uuid"], "BALENA_HOST_CONFIG_gpu_mem"), "16")
    models.device.service_var.set(device["uuid"], release["service"], "LEVEL", "3")
    ours = models.device.service_var.get_all_by_device(device["uuid"])
    equal([(one["name"], one["value"]) for one in ours], [("LEVEL", "3")])
    models.device.tags.set(device["uuid"], "site", "north")
    equal([one["value"] for one in models.device.tags.get_all_by_device(device["uuid"])], ["north"])


@step("what the device is told")
def told():
    state = models.device.get_supervisor_target_state(device["uuid"])
    equal(state["local"]["name"], "roof")
    equal(state["local"]["config"]["BALENA_HOST_CONFIG_gpu_mem"], "16")
    models.device.pin_to_release(device["uuid"], release["id"])
    equal(models.device.is_tracking_application_release(device["uuid"]), False)
    models.device.track_application_release(device["uuid"])
    equal(models.device.is_tracking_application_release(device["uuid"]), True)


@step("what the device says")
def said():
    services = {"main": {"image": release["location"], "status": "Running"}}
    apps = {
        fleet["uuid"]: {
            "release_uuid": release["commit"],
            "releases": {release["commit"]: {"update_status": "done", "services": services}},
        }
    }
    report = {"status": "Idle", "os_version": "Minke 1.0.0", "ip_address": "10.0.0.2 fe80::1", "apps": apps}
    as_device(device["key"], "PATCH", "/device/v3/state", {device["uuid"]: report})
    details = models.device.get_with_service_details(device["uuid"])
    equal(details["current_services"]["main"][0]["status"], "Running")
    equal(details["current_services"]["main"][0]["commit"], release["commit"])
    equal(models.device.get(device["uuid"])["ip_address"], "10.0.0.2 fe80::1")
    # It has said something and is not connected: the SDK itself refuses to go by old addresses.
    refused(exceptions.DeviceOffline, models.device.get_local_ip_address, device["uuid"])
    running = models.application.get_with_device_service_details(fleet["slug"])
    equal(len(running["owns__device"]), 1)


@step("logs")
def logs():
    def say(message):
        body = [{"message": message, "timestamp": int(datetime.datetime.now().timestamp() * 1000)}]
        as_device(device["key"], "POST", f"/device/v2/{device['uuid']}/logs", body)

    say("one")
    equal([line["message"] for line in balena.logs.history(device["uuid"])], ["one"])
    seen, first, second = [], threading.Event(), threading.Event()

    def line(entry):
        seen.append(entry["message"])
        (second if first.is_set() else first).set()

    balena.logs.subscribe(device["uuid"], line, count="all")
    assert first.wait(30), "the first line did not come"
    say("two")
    assert second.wait(30), "the second line did not come"
    equal(seen, ["one", "two"])
    balena.logs.stop()


@step("keys")
def keys():
    key = models.api_key.create("ci")
    named = models.api_key.get_all_named_user_api_keys()
    equal([one["name"] for one in named], ["ci"])
    who = urllib.request.Request(f"{URL}/actor/v1/whoami", headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(who, timeout=30) as response:
        equal(json.load(response)["username"], me["username"])
    models.api_key.revoke(named[0]["id"])
    assert models.api_key.get_provisioning_api_keys_by_application(fleet["slug"])
    assert models.api_key.get_device_api_keys_by_device(device["uuid"])
    ssh = models.key.create("laptop", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA test")
    equal(models.key.get(ssh["id"])["title"], "laptop")
    models.key.remove(ssh["id"])


@step("a configuration for a new device")
def configuration():
    config = models.os.get_config(fleet["slug"], {"version": "6.0.0", "network": "ethernet"})
    equal(config["applicationId"], fleet["id"])
    equal(config["apiEndpoint"], URL)


@step("clean up")
def clean():
    models.application.rename(fleet["slug"], "Weather2")
    equal(models.application.get(fleet["id"])["slug"], f"{organization['handle']}/weather2")
    models.device.remove(device["uuid"])
    equal(models.device.has(device["uuid"]), False)
    models.application.remove(fleet["id"])
    equal(models.application.has_any(), False)
    balena.auth.logout()
    equal(balena.auth.is_logged_in(), False)


print("done", flush=True)
sys.exit(0)
