# Sourced by the other scripts: where things are, which ports, how processes are started, found and ended.
# Why it exists: each process is known by its id and its start time, so none is taken for another that has got its id.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
WORK=${OPENSTACK_WORK:-$HERE/../../target/openstack}
WORK=$(mkdir -p "$WORK" && cd "$WORK" && pwd)
VENV=$WORK/venv LOG=$WORK/log RUN=$WORK/run ETC=$WORK/etc DATA=$WORK/data
BASE=${OPENSTACK_PORT_BASE:-17000}  # every port is this and a constant; BMCs of Redfish nodes: 127.0.2.N:BASE
REDFISH_NODES=${OPENSTACK_REDFISH_NODES:-4}
IPMI_NODES=${OPENSTACK_IPMI_NODES:-3}
PXE_NODES=${OPENSTACK_PXE_NODES:-3}
IPMI_BMCS=$((IPMI_NODES + PXE_NODES)) # those of the nodes `pxe1` and on come last
P_SUSHY=$((BASE+1)) P_IPMI=$((BASE+230)) P_TGT=$((BASE+260)) P_MYSQL=$((BASE+306)) P_HTTP=$((BASE+380))
P_IRONIC=$((BASE+385)) P_KEYSTONE=$((BASE+500)) P_RABBIT=$((BASE+672)) P_RDIST=$((BASE+673)) P_EPMD=$((BASE+674))
P_NEUTRON=$((BASE+696)) P_CINDER=$((BASE+776))
SERVICES="mariadb rabbit tgtd keystone neutron cinder-api cinder-scheduler cinder-volume httpd sushy bmcproxy ipmi ironic"

# ---- processes

pid_of() { cat "$RUN/$1.pid" 2> /dev/null; }

# Everything behind the name in the stat of /proc/PID (or PID/task/TID): the state is its first word, the start time its 20th.
stat_of() { sed 's/.*) //' "/proc/$1/stat" 2> /dev/null; }

# There, and no zombie. Of a dying process the first thread is one before the others are, which still hold its ports.
running() { # PID
    local thread
    for thread in /proc/"$1"/task/*; do
        case "$(stat_of "${thread#/proc/}" | cut -c1)" in Z | X | '') ;; *) return 0 ;; esac
    done
    return 1
}

alive() { # NAME
    local pid
    pid=$(pid_of "$1") && [ -n "$pid" ] && running "$pid" || return 1
    [ "$(stat_of "$pid" | cut -d' ' -f20)" = "$(cat "$RUN/$1.start" 2> /dev/null)" ]
}

start() { # NAME COMMAND...
    local name=$1
    shift
    alive "$name" && return 0
    setsid nohup "$@" > "$LOG/$name.out" 2>&1 < /dev/null &
    echo $! > "$RUN/$name.pid"
    stat_of $! | cut -d' ' -f20 > "$RUN/$name.start"
}

children_of() {
    local child
    for child in $(cat /proc/"$1"/task/*/children 2> /dev/null); do echo "$child"; children_of "$child"; done
}

# Of a service with its children: uWSGI answers from them.
signal() { # NAME SIGNAL
    local pid
    alive "$1" || { echo "$1 does not run" >&2; return 1; }
    pid=$(pid_of "$1")
    kill -"$2" "$pid" $(children_of "$pid")
}

end() { # NAME
    local name=$1 pid children try
    if alive "$name"; then
        pid=$(pid_of "$name")
        children=$(children_of "$pid")
        kill -CONT "$pid" 2> /dev/null # a BMC may have been frozen
        kill "$pid" 2> /dev/null
        for try in $(seq 150); do running "$pid" || break; sleep .1; done
        # tgtd ignores SIGTERM; children were read a moment ago, before their parent ended.
        for pid in $pid $children; do running "$pid" && kill -9 "$pid" 2> /dev/null; done
    fi
    rm -f "$RUN/$name.pid" "$RUN/$name.start"
}

wait_for() { # SERVICE SECONDS
    local until=$(($(date +%s) + $2))
    until ready "$1" > /dev/null 2>&1; do
        if [ "$(date +%s)" -ge "$until" ]; then
            echo "$1 is not ready after $2 s; see $LOG/$1.out and $LOG/$1.log" >&2
            return 1
        fi
        sleep .2
    done
}

# ---- services

listens() { (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }
answers() { curl --silent --output /dev/null --max-time 3 "$@"; }

ready() { # SERVICE
    local node
    case $1 in
        mariadb) mariadb -S "$RUN/mysql.sock" -uroot -e 'select 1' ;;
        rabbit) listens $P_RABBIT ;;
        tgtd) listens $P_TGT ;;
        httpd) listens $P_HTTP ;;
        sushy) answers --fail "http://127.0.0.1:$P_SUSHY/redfish/v1/Systems" ;;
        bmcproxy) answers --fail "http://127.0.2.1:$BASE/redfish/v1/Systems" ;;
        keystone) answers --fail "http://127.0.0.1:$P_KEYSTONE/v3" ;;
        neutron) answers --fail "http://127.0.0.1:$P_NEUTRON/" ;;
        cinder-api) answers "http://127.0.0.1:$P_CINDER/" ;; # 300, several versions
        cinder-scheduler | cinder-volume) alive "$1" ;;
        ironic) answers --fail "http://127.0.0.1:$P_IRONIC/v1/" ;;
        ipmi) for node in $(seq "$IPMI_BMCS"); do alive "ipmi$node" || return 1; done ;;
    esac
}

# The program of a service, unless it runs.
launch() { # SERVICE
    local node
    cd "$WORK"
    case $1 in
        mariadb) start mariadb /usr/sbin/mariadbd --defaults-file="$ETC/my.cnf" ;;
        rabbit) (rabbit_env; start rabbit /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server) ;;
        tgtd) TGT_IPC_SOCKET=$RUN/tgtd.sock start tgtd tgtd -f -t 2 --iscsi portal=127.0.0.1:$P_TGT ;;
        keystone | neutron) start "$1" "$VENV/bin/uwsgi" --ini "$ETC/$1/uwsgi.ini" ;;
        cinder-api) start cinder-api "$VENV/bin/uwsgi" --ini "$ETC/cinder/uwsgi.ini" ;;
        cinder-scheduler | cinder-volume) PYTHONPATH=$WORK/pylib start "$1" "$VENV/bin/$1" \
            --config-file "$ETC/cinder/cinder.conf" --log-file "$LOG/$1.log" ;;
        httpd) start httpd "$VENV/bin/python" -m http.server --bind 127.0.0.1 --directory "$WORK/http" $P_HTTP ;;
        sushy) start sushy "$VENV/bin/sushy-emulator" --config "$ETC/sushy.conf" ;;
        bmcproxy) start bmcproxy "$VENV/bin/python" "$HERE/lib/bmcproxy.py" "$REDFISH_NODES" $BASE $P_SUSHY "$DATA/bmc" ;;
        ipmi) for node in $(seq "$IPMI_BMCS"); do
            mkdir -p "$DATA/ipmi/$node"
            start "ipmi$node" ipmi_sim -n -c "$ETC/ipmi/lan$node.conf" -f "$ETC/ipmi/bmc.emu" -s "$DATA/ipmi/$node"
        done ;;
        ironic) start ironic "$VENV/bin/ironic" --config-file "$ETC/ironic.conf" ;;
    esac
}

rabbit_env() {
    export RABBITMQ_NODENAME=testbed$BASE@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$P_RABBIT \
        RABBITMQ_DIST_PORT=$P_RDIST RABBITMQ_MNESIA_BASE=$DATA/rabbit RABBITMQ_LOG_BASE=$LOG \
        RABBITMQ_CONFIG_FILE=$ETC/rabbitmq.conf RABBITMQ_ENABLED_PLUGINS_FILE=$ETC/rabbit_plugins \
        HOME=$DATA/rabbithome ERL_EPMD_PORT=$P_EPMD ERL_EPMD_ADDRESS=127.0.0.1
}
