// The official SDK against a real server: what a person does with a fleet, from logging in to cleaning up.
//
// Environment: MINKE_URL, MINKE_EMAIL, MINKE_PASSWORD, MINKE_HOME (a directory for the SDK's token).
// Ends with 0 and the line "done" when every step was as the SDK's own documentation says.

import assert from 'node:assert/strict';
import { getSdk } from 'balena-sdk';

const url = process.env.MINKE_URL;
const sdk = getSdk({ apiUrl: url, dataDirectory: process.env.MINKE_HOME });

async function step(name, work) {
	try {
		const result = await work();
		console.log(`ok ${name}`);
		return result;
	} catch (error) {
		console.log(`FAILED ${name}: ${error?.stack ?? error}`);
		process.exit(1);
	}
}

/** A request as a device makes it. */
async function asDevice(key, method, path, body) {
	const response = await fetch(`${url}${path}`, {
		method,
		headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
		body: JSON.stringify(body),
	});
	assert.ok(response.ok, `${method} ${path}: ${response.status} ${await response.clone().text()}`);
	return response;
}

await step('a wrong password is refused', async () => {
	const wrong = sdk.auth.login({ email: process.env.MINKE_EMAIL, password: 'not the password' });
	await assert.rejects(wrong, (error) => error.code === 'BalenaInvalidLoginCredentials');
	assert.equal(await sdk.auth.isLoggedIn(), false);
});

const me = await step('log in', async () => {
	await sdk.auth.login({ email: process.env.MINKE_EMAIL, password: process.env.MINKE_PASSWORD });
	assert.equal(await sdk.auth.isLoggedIn(), true);
	const who = await sdk.auth.whoami();
	assert.equal(who.actorType, 'user');
	assert.equal((await sdk.auth.getUserInfo()).email, process.env.MINKE_EMAIL);
	return who;
});

const organization = await step('organizations', async () => {
	const all = await sdk.models.organization.getAll();
	assert.equal(all.length, 1);
	const made = await sdk.models.organization.create({ name: 'Second' });
	assert.equal((await sdk.models.organization.get(made.id)).name, 'Second');
	const mine = await sdk.models.organization.membership.getAllByOrganization(made.id, {
		$expand: { user: { $select: 'username' }, organization_membership_role: { $select: 'name' } },
	});
	assert.equal(mine[0].user[0].username, me.username);
	assert.equal(mine[0].organization_membership_role[0].name, 'administrator');
	await sdk.models.organization.remove(made.id);
	return all[0];
});

await step('device types', async () => {
	assert.equal(await sdk.models.deviceType.getSlugByName('QEMU X86 64bit'), 'qemux86-64');
	assert.ok((await sdk.models.config.getDeviceTypes()).some((type) => type.slug === 'qemux86-64'));
	assert.ok((await sdk.models.config.getConfigVarSchema()).configVarSchema.properties);
});

const fleet = await step('make a fleet', async () => {
	const made = await sdk.models.application.create({
		name: 'Weather',
		deviceType: 'qemux86-64',
		organization: organization.handle,
	});
	assert.equal(made.slug, `${organization.handle}/weather`);
	const twice = sdk.models.application.create({
		name: 'Weather',
		deviceType: 'qemux86-64',
		organization: organization.handle,
	});
	await assert.rejects(twice, (error) => error.statusCode === 409 || /unique/i.test(error.message));
	const all = await sdk.models.application.getAllDirectlyAccessible();
	assert.deepEqual(all.map((one) => one.slug), [made.slug]);
	assert.equal((await sdk.models.application.get(made.slug)).id, made.id);
	assert.equal(await sdk.models.application.has('nobody/nothing'), false);
	return made;
});

const device = await step('register a device', async () => {
	const key = await sdk.models.application.generateProvisioningKey({ slugOrUuidOrId: fleet.slug, keyExpiryDate: null });
	assert.equal(typeof key, 'string');
	const uuid = sdk.models.device.generateUniqueKey();
	const made = await sdk.models.device.register(fleet.slug, uuid);
	assert.equal(made.uuid, uuid);
	await assert.rejects(sdk.models.device.register(fleet.slug, uuid));
	const all = await sdk.models.device.getAllByApplication(fleet.slug);
	assert.deepEqual(all.map((one) => one.uuid), [uuid]);
	assert.equal(await sdk.models.device.isOnline(uuid), false);
	assert.equal(await sdk.models.device.getApplicationName(uuid), 'Weather');
	await sdk.models.device.rename(uuid, 'roof');
	assert.equal((await sdk.models.device.getByName('roof')).length, 1);
	await sdk.models.device.setNote(uuid, 'by the chimney');
	assert.equal((await sdk.models.device.get(uuid)).note, 'by the chimney');
	return { id: made.id, uuid, key: made.api_key };
});

const release = await step('record a release as a deploy does', async () => {
	const user = await sdk.auth.getUserInfo();
	const { pine } = sdk;
	const now = () => new Date().toISOString();
	const made = await pine.post({
		resource: 'release',
		body: {
			is_created_by__user: user.id,
			belongs_to__application: fleet.id,
			composition: { version: '2.1', networks: {}, volumes: { data: {} }, services: { main: { image: 'x' } } },
			commit: '0123456789abcdef0123456789abcdef',
			status: 'running',
			source: 'local',
			start_timestamp: now(),
			is_final: true,
			semver: '1.2.3',
		},
	});
	const service = await pine.post({ resource: 'service', body: { application: fleet.id, service_name: 'main' } });
	const image = await pine.post({
		resource: 'image',
		body: { is_a_build_of__service: service.id, status: 'running', start_timestamp: now() },
	});
	assert.match(image.is_stored_at__image_location, new RegExp(`^${new URL(url).host}/v2/[0-9a-f]{32}$`));
	const place = await pine.post({
		resource: 'image__is_part_of__release',
		body: { image: image.id, is_part_of__release: made.id },
	});
	await pine.post({ resource: 'image_label', body: { release_image: place.id, label_name: 'a.b', value: '1' } });
	await pine.patch({
		resource: 'image',
		id: image.id,
		body: {
			status: 'success',
			content_hash: `sha256:${'0'.repeat(64)}`,
			image_size: '12345',
			build_log: 'x'.repeat(1_500_000),
			end_timestamp: now(),
		},
	});
	await pine.patch({ resource: 'release', id: made.id, body: { status: 'success', end_timestamp: now() } });
	return { id: made.id, commit: made.commit, image, service };
});

await step('read releases', async () => {
	const all = await sdk.models.release.getAllByApplication(fleet.slug);
	assert.deepEqual(all.map((one) => one.commit), [release.commit]);
	const latest = await sdk.models.release.getLatestByApplication(fleet.slug);
	assert.equal(latest.raw_version, '1.2.3');
	assert.equal(latest.is_final, true);
	const details = await sdk.models.release.getWithImageDetails(release.id);
	assert.equal(details.images[0].service_name, 'main');
	assert.equal((await sdk.models.image.getLogs(release.image.id)).length, 1_500_000);
	await sdk.models.release.setNote(release.id, 'first');
	await sdk.models.release.tags.set(release.id, 'stage', 'one');
	await sdk.models.release.tags.set(release.id, 'stage', 'two');
	const tags = await sdk.models.release.tags.getAllByRelease(release.id);
	assert.deepEqual(tags.map((tag) => [tag.tag_key, tag.value]), [['stage', 'two']]);
	assert.equal(await sdk.models.application.getTargetReleaseHash(fleet.slug), release.commit);
	assert.equal(await sdk.models.application.isTrackingLatestRelease(fleet.slug), true);
});

await step('variables', async () => {
	for (const [model, parent] of [
		[sdk.models.application.envVar, fleet.slug],
		[sdk.models.application.buildVar, fleet.slug],
		[sdk.models.device.envVar, device.uuid],
		[sdk.models.service.var, release.service.id],
	]) {
		await model.set(parent, 'PLACE', 'roof');
		await model.set(parent, 'PLACE', 'cellar');
		assert.equal(await model.get(parent, 'PLACE'), 'cellar');
		await model.set(parent, 'OTHER', '');
		await model.remove(parent, 'OTHER');
		assert.equal(await model.get(parent, 'OTHER'), undefined);
	}
	await sdk.models.device.configVar.set(device.uuid, 'BALENA_HOST_CONFIG_gpu_mem', '16');
	await sdk.models.device.serviceVar.set(device.uuid, release.service.id, 'LEVEL', '3');
	const ours = await sdk.models.device.serviceVar.getAllByDevice(device.uuid);
	assert.deepEqual(ours.map((one) => [one.name, one.value]), [['LEVEL', '3']]);
	const all = await sdk.models.device.envVar.getAllByApplication(fleet.slug);
	assert.deepEqual(all.map((one) => one.name), ['PLACE']);
});

await step('what the device is told', async () => {
	const state = await sdk.models.device.getSupervisorTargetState(device.uuid, '3');
	const app = Object.values(state[device.uuid].apps)[0];
	const { main } = app.releases[release.commit].services;
	assert.deepEqual(main.environment, { PLACE: 'cellar', LEVEL: '3' });
	assert.deepEqual(main.labels, { 'a.b': '1' });
	const same = await sdk.models.device.getSupervisorTargetStateForApp(fleet.uuid);
	assert.ok(same[fleet.uuid]);
	await sdk.models.device.pinToRelease(device.uuid, release.id);
	assert.equal(await sdk.models.device.isTrackingApplicationRelease(device.uuid), false);
	await sdk.models.device.trackApplicationRelease(device.uuid);
	assert.equal(await sdk.models.device.getTargetReleaseHash(device.uuid), release.commit);
});

await step('what the device says', async () => {
	await asDevice(device.key, 'PATCH', '/device/v3/state', {
		[device.uuid]: {
			status: 'Idle',
			os_version: 'Minke 1.0.0',
			supervisor_version: '19.0.5',
			ip_address: '10.0.0.2 fe80::1',
			apps: {
				[fleet.uuid]: {
					release_uuid: release.commit,
					releases: {
						[release.commit]: {
							update_status: 'done',
							services: { main: { image: release.image.is_stored_at__image_location, status: 'Running' } },
						},
					},
				},
			},
		},
	});
	const details = await sdk.models.device.getWithServiceDetails(device.uuid);
	assert.equal(details.current_services_by_app[fleet.slug].main[0].status, 'Running');
	assert.equal(details.current_services_by_app[fleet.slug].main[0].commit, release.commit);
	assert.equal((await sdk.models.device.get(device.uuid)).ip_address, '10.0.0.2 fe80::1');
	const running = await sdk.models.application.getWithDeviceServiceDetails(fleet.slug);
	assert.equal(running.owns__device.length, 1);
});

await step('logs', async () => {
	const say = (message) =>
		asDevice(device.key, 'POST', `/device/v2/${device.uuid}/logs`, [{ message, timestamp: Date.now() }]);
	await say('one');
	const history = await sdk.logs.history(device.uuid);
	assert.deepEqual(history.map((line) => line.message), ['one']);
	const stream = await sdk.logs.subscribe(device.uuid, { count: 'all' });
	const seen = [];
	await new Promise((resolve, reject) => {
		stream.on('error', reject);
		stream.on('line', (line) => {
			seen.push(line.message);
			if (seen.length === 1) {
				say('two').catch(reject);
			} else {
				resolve();
			}
		});
	});
	stream.unsubscribe();
	assert.deepEqual(seen, ['one', 'two']);
});

await step('keys', async () => {
	const key = await sdk.models.apiKey.create({ name: 'ci', expiryDate: null });
	const other = getSdk({ apiUrl: url, dataDirectory: false });
	await other.auth.loginWithToken(key);
	assert.equal((await other.auth.whoami()).username, me.username);
	const all = await sdk.models.apiKey.getAllNamedUserApiKeys();
	assert.deepEqual(all.map((one) => one.name), ['ci']);
	await sdk.models.apiKey.revoke(all[0].id);
	assert.equal(await other.auth.isLoggedIn(), false);
	assert.ok((await sdk.models.apiKey.getProvisioningApiKeysByApplication(fleet.slug)).length >= 1);
	assert.ok((await sdk.models.apiKey.getDeviceApiKeysByDevice(device.uuid)).length >= 1);
	const ssh = await sdk.models.key.create('laptop', 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA test');
	assert.equal((await sdk.models.key.get(ssh.id)).title, 'laptop');
	await sdk.models.key.remove(ssh.id);
});

await step('a configuration for a new device', async () => {
	const config = await sdk.models.os.getConfig(fleet.slug, { version: '6.0.0', network: 'ethernet' });
	assert.equal(config.applicationId, fleet.id);
	assert.equal(config.apiEndpoint, url);
	assert.equal(typeof config.apiKey, 'string');
});

await step('a device that is away cannot be called', async () => {
	await assert.rejects(sdk.models.device.ping(device.uuid), (error) => error.statusCode === 404);
});

await step('clean up', async () => {
	await sdk.models.application.rename(fleet.slug, 'Weather2');
	assert.equal((await sdk.models.application.get(fleet.id)).slug, `${organization.handle}/weather2`);
	await sdk.models.device.remove(device.uuid);
	assert.equal(await sdk.models.device.has(device.uuid), false);
	await sdk.models.application.remove(fleet.id);
	assert.equal(await sdk.models.application.hasAny(), false);
	await sdk.auth.logout();
	assert.equal(await sdk.auth.isLoggedIn(), false);
});

console.log('done');
process.exit(0);
