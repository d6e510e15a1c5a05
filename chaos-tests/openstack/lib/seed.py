"""seed.py keystone|network|volume|nodes BASE [NODES IPMI_NODES PXE_NODES]: idempotent seeding over plain HTTP.
seed.py instance BASE NAME: what an instance keeps wherever it runs, a Neutron port and a Cinder volume; prints their ids.
seed.py revoke BASE: every token of the user `failover` is invalid.   seed.py status BASE VOLUME STATUS: Cinder's book says so."""
import sys, time
import requests

what, base = sys.argv[1], int(sys.argv[2])
U = {k: f'http://127.0.0.1:{base + p}' for k, p in dict(keystone=500, ironic=385, neutron=696, cinder=776, bmc=0).items()}
K = U['keystone'] + '/v3'


def token(user, project, password='secret'):
    r = requests.post(K + '/auth/tokens', json={'auth': {
        'identity': {'methods': ['password'], 'password': {'user': {'name': user, 'domain': {'id': 'default'}, 'password': password}}},
        'scope': {'project': {'name': project, 'domain': {'id': 'default'}}}}}, timeout=60)
    r.raise_for_status()
    return r.headers['X-Subject-Token'], r.json()['token']['project']['id']


def call(method, url, headers, body=None, ok=()):
    r = requests.request(method, url, json=body, headers=headers, timeout=180)
    if r.status_code >= 400 and r.status_code not in ok:
        raise SystemExit(f'{method} {url} {body}: {r.status_code} {r.text}')
    return r.json() if r.text and 'json' in r.headers.get('Content-Type', '') else None


def keystone():
    H = {'X-Auth-Token': token('admin', 'admin')[0]}

    def ensure(kind, name, **extra):
        for x in call('GET', f'{K}/{kind}s?name={name}', H)[kind + 's']:
            return x['id']
        return call('POST', f'{K}/{kind}s', H, {kind: dict(name=name, **extra)})[kind]['id']
    roles = {n: ensure('role', n) for n in ('admin', 'member', 'reader', 'manager', 'service')}
    service, demo = ensure('project', 'service', domain_id='default'), ensure('project', 'demo', domain_id='default')
    for u in ('ironic', 'neutron', 'cinder', 'failover'):
        i = ensure('user', u, password='secret', domain_id='default')
        for r in ('admin', 'service'):
            call('PUT', f'{K}/projects/{service}/users/{i}/roles/{roles[r]}', H)
        call('PUT', f'{K}/system/users/{i}/roles/{roles["admin"]}', H)
    i = ensure('user', 'demo', password='secret', domain_id='default')
    call('PUT', f'{K}/projects/{demo}/users/{i}/roles/{roles["member"]}', H)
    for ty, (n, u) in {'baremetal': ('ironic', U['ironic']), 'network': ('neutron', U['neutron']),
                       'block-storage': ('cinder', U['cinder'] + '/v3'), 'volumev3': ('cinderv3', U['cinder'] + '/v3')}.items():
        s = ensure('service', n, type=ty)
        have = {e['interface'] for e in call('GET', f'{K}/endpoints?service_id={s}', H)['endpoints']}
        for itf in {'public', 'internal', 'admin'} - have:
            call('POST', K + '/endpoints', H, {'endpoint': dict(service_id=s, interface=itf, url=u, region_id='RegionOne')})


def network():
    N, H = U['neutron'] + '/v2.0', {'X-Auth-Token': token('failover', 'service')[0]}
    for name, vlan, cidr in (('provisioning', 150, '10.99.0.0/24'), ('tenant', 101, '10.10.0.0/24'), ('storage', 102, '10.20.0.0/24')):
        if not call('GET', f'{N}/networks?name={name}', H)['networks']:
            n = call('POST', N + '/networks', H, {'network': {'name': name, 'provider:network_type': 'vlan',
                     'provider:physical_network': 'physnet1', 'provider:segmentation_id': vlan}})['network']['id']
            call('POST', N + '/subnets', H, {'subnet': dict(network_id=n, cidr=cidr, ip_version=4, enable_dhcp=False)})


def volume():
    t, p = token('failover', 'service')
    C, H = f'{U["cinder"]}/v3/{p}', {'X-Auth-Token': t, 'OpenStack-API-Version': 'volume 3.71'}
    have = {x['name'] for x in call('GET', C + '/types', H)['volume_types']}
    for n, spec in (('filetgt', {}), ('filetgt-multi', {'multiattach': '<is> True'})):
        if n not in have:
            call('POST', C + '/types', H, {'volume_type': {'name': n, 'extra_specs': dict(spec, volume_backend_name='filetgt')}})
    # A volume that is made before the scheduler knows of a back end is in error for good.
    for _ in range(300):
        if call('GET', C + '/scheduler-stats/get_pools', H)['pools']:
            return
        time.sleep(1)
    raise SystemExit('cinder-volume did not come up')


def instance(name):
    t, p = token('failover', 'service')
    H = {'X-Auth-Token': t, 'OpenStack-API-Version': 'volume 3.71'}
    N, C = U['neutron'] + '/v2.0', f'{U["cinder"]}/v3/{p}'
    ports = call('GET', f'{N}/ports?name={name}', H)['ports']
    net = call('GET', f'{N}/networks?name=tenant', H)['networks'][0]['id']
    port = ports[0] if ports else call('POST', N + '/ports', H, {'port': {'name': name, 'network_id': net, 'binding:vnic_type': 'baremetal',
        'device_owner': 'baremetal:none'}})['port']
    volumes = call('GET', f'{C}/volumes?name={name}', H)['volumes']
    volume = volumes[0] if volumes else call('POST', C + '/volumes', H, {'volume': {'name': name, 'size': 1}})['volume']
    print(port['id'], volume['id'])


def revoke():
    H = {'X-Auth-Token': token('admin', 'admin')[0]}
    user = call('GET', f'{K}/users?name=failover', H)['users'][0]['id']
    for enabled in (False, True):
        call('PATCH', f'{K}/users/{user}', H, {'user': {'enabled': enabled}})


def status(volume, status):
    t, p = token('failover', 'service')
    H = {'X-Auth-Token': t, 'OpenStack-API-Version': 'volume 3.71'}
    call('POST', f'{U["cinder"]}/v3/{p}/volumes/{volume}/action', H, {'os-reset_status': {'status': status}})


# How a node gets a state further on its way to `available`; `error` is left by an undeployment that failed.
FORWARD = {'enroll': 'manage', 'manageable': 'provide', 'error': 'deleted'}


# What a `pxe` node is cleaned by, as raw IPMI requests. CLEANS notes CLEANED in the event log (IPMI 2.0, 31.6 Add SEL Entry: an OEM record
# without a time stamp), which tells that it has run; BMCs do not know the other.
RUNBOOKS = {'CUSTOM_CLEANS': '0x0a 0x44 0x00 0x00 0xe0 0x43 0x4c 0x45 0x41 0x4e 0x45 0x44 0x00 0x00 0x00 0x00 0x00 0x00',
    'CUSTOM_FAILS': '0x30 0x01'}
CLEANED = 'CUSTOM_CLEANED'  # the trait of nodes that these are for


def ironic(version='1.99'):
    return U['ironic'] + '/v1', {'X-Auth-Token': token('failover', 'service')[0], 'X-OpenStack-Ironic-API-Version': version}


def runbooks():
    I, H = ironic('1.112')
    for name, request in RUNBOOKS.items():
        if requests.get(f'{I}/runbooks/{name}', headers=H, timeout=60).status_code == 404:
            call('POST', I + '/runbooks', H, dict(name=name, disable_ramdisk=True,
                steps=[dict(interface='vendor', step='send_raw', args=dict(raw_bytes=request), order=1)]))
            call('PUT', f'{I}/runbooks/{name}/traits', H, dict(traits=[CLEANED]))


def runbook(node, name):
    I, H = ironic()
    call('PATCH', f'{I}/nodes/{node}', H, [dict(op='add', path='/driver_info/cleaning_runbook', value=name)])


def nodes(n_redfish, n_ipmi, n_pxe):
    runbooks()
    I, H = ironic()
    specs = []
    for i in range(1, n_redfish + 1):
        specs.append(dict(name=f'rf{i}', driver='redfish', resource_class='bm.redfish', deploy_interface='ramdisk', boot_interface='redfish-virtual-media',
            network_interface='neutron', driver_info=dict(redfish_address=f'http://127.0.2.{i}:{base}', redfish_username='admin', redfish_password='x',
            redfish_system_id=f'/redfish/v1/Systems/00000000-0000-0000-0000-{i:012d}', redfish_verify_ca=False), properties=dict(capabilities='boot_mode:uefi')))
    for i in range(1, n_ipmi + n_pxe + 1):
        bmc = dict(ipmi_address='127.0.0.1', ipmi_port=base + 230 + i, ipmi_username='admin', ipmi_password='secret', ipmi_cipher_suite='3')
        kind = dict(name=f'ipmi{i}', deploy_interface='fake', boot_interface='fake', resource_class='bm.ipmi')
        if i > n_ipmi:
            # A node that is cleaned must be able to start an agent, although this runbook needs none.
            images = f'http://127.0.0.1:{base + 380}/images'
            bmc |= dict(cleaning_runbook='CUSTOM_CLEANS', deploy_kernel=images + '/kernel', deploy_ramdisk=images + '/ramdisk')
            kind = dict(name=f'pxe{i - n_ipmi}', deploy_interface='ramdisk', boot_interface='ipxe', storage_interface='cinder', resource_class='bm.pxe',
                vendor_interface='ipmitool', automated_clean=True, properties=dict(capabilities='iscsi_boot:true'))
        specs.append(dict(kind, driver='fake-hardware', power_interface='ipmitool', management_interface='ipmitool', network_interface='neutron', driver_info=bmc))
    for k, s in enumerate(specs, 1):
        if requests.get(f'{I}/nodes/{s["name"]}', headers=H, timeout=60).status_code == 404:
            u = call('POST', I + '/nodes', H, s)['uuid']
            call('POST', I + '/ports', H, dict(node_uuid=u, address=f'52:54:00:aa:00:{k:02x}', physical_network='physnet1', pxe_enabled=True,
                 local_link_connection=dict(switch_id='52:54:00:00:00:01', port_id=f'Ethernet{k}', switch_info='sw0')))
            call('POST', I + '/volume/connectors', H, dict(node_uuid=u, type='iqn', connector_id=f'iqn.2026-01.test:{s["name"]}'))
            traits = [f'CUSTOM_RACK_{"AB"[k % 2]}'] + [CLEANED] * s.get('automated_clean', False)
            call('PUT', f'{I}/nodes/{u}/traits', H, dict(traits=traits))
    pending = {s['name'] for s in specs}
    end = time.time() + 60 + 30 * len(specs)
    while pending and time.time() < end:
        for name in sorted(pending):
            j = call('GET', f'{I}/nodes/{name}?fields=provision_state,reservation,last_error', H)
            st = j['provision_state']
            if st in ('available', 'active'):
                pending.discard(name)
            elif not j['reservation'] and st in FORWARD:
                call('PUT', f'{I}/nodes/{name}/states/provision', H, dict(target=FORWARD[st]), ok=(409,))
        time.sleep(.5)
    if pending:
        raise SystemExit(f'not available in time: {sorted(pending)}')
    print(f'{len(specs)} nodes are there')


if __name__ == '__main__':
    {'keystone': keystone, 'network': network, 'volume': volume, 'instance': lambda: instance(sys.argv[3]),
     'revoke': revoke, 'status': lambda: status(*sys.argv[3:5]), 'runbook': lambda: runbook(*sys.argv[3:5]),
     'nodes': lambda: nodes(*map(int, sys.argv[3:6]))}[what]()
