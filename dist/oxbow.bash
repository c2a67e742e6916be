# bash completion for oxbow(1), made by 'oxbow generate bash'

_oxbow_verbs() {
	case "$1" in
	pool) echo "create import export list show grow check" ;;
	volume) echo "create list show delete grow rename clone flatten revert allow disallow unreserve extents move salvage scrub" ;;
	copy) echo "add forget" ;;
	node) echo "list" ;;
	snapshot) echo "create list show delete rename usage" ;;
	nvme) echo "list" ;;
	ublk) echo "attach detach list" ;;
	attachment) echo "list reap link" ;;
	job) echo "list watch cancel throttle" ;;
	esac
}

_oxbow_options() {
	case "$1" in
	"pool create") echo "--help --name --size --force --id" ;;
	"pool import") echo "--help" ;;
	"pool export") echo "--help" ;;
	"pool list") echo "--help" ;;
	"pool show") echo "--help" ;;
	"pool grow") echo "--help --size" ;;
	"pool check") echo "--help" ;;
	"volume create") echo "--help --size --pool --block-size --id --copies" ;;
	"volume list") echo "--help --pool" ;;
	"volume show") echo "--help" ;;
	"volume delete") echo "--help --yes --wait" ;;
	"volume grow") echo "--help --size" ;;
	"volume rename") echo "--help" ;;
	"volume clone") echo "--help --size --id --full --wait" ;;
	"volume flatten") echo "--help --cancel --wait" ;;
	"volume revert") echo "--help --id --yes" ;;
	"volume allow") echo "--help --secret-file --generate-secret --controller-secret-file --tls-key-file --generate-tls-key" ;;
	"volume disallow") echo "--help --yes --all" ;;
	"volume unreserve") echo "--help --yes" ;;
	"volume extents") echo "--help --since" ;;
	"volume move") echo "--help --to" ;;
	"volume salvage") echo "--help --pool --accept-loss" ;;
	"volume scrub") echo "--help --cancel" ;;
	"copy add") echo "--help" ;;
	"copy forget") echo "--help --yes" ;;
	"node list") echo "--help" ;;
	"snapshot create") echo "--help --id" ;;
	"snapshot list") echo "--help" ;;
	"snapshot show") echo "--help" ;;
	"snapshot delete") echo "--help --wait" ;;
	"snapshot rename") echo "--help" ;;
	"snapshot usage") echo "--help" ;;
	"nvme list") echo "--help" ;;
	"ublk attach") echo "--help" ;;
	"ublk detach") echo "--help --force" ;;
	"ublk list") echo "--help" ;;
	"attach") echo "--help --by --as --owner --at --secret-file --controller-secret-file --state-dir --links" ;;
	"detach") echo "--help --force --owner --state-dir --links" ;;
	"attachment list") echo "--help --state-dir --links" ;;
	"attachment reap") echo "--help --state-dir --links" ;;
	"attachment link") echo "--help --state-dir" ;;
	"job list") echo "--help" ;;
	"job watch") echo "--help" ;;
	"job cancel") echo "--help" ;;
	"job throttle") echo "--help" ;;
	"events") echo "--help --follow --since" ;;
	"status") echo "--help" ;;
	"ready") echo "--help --wait" ;;
	"version") echo "--help" ;;
	"generate") echo "--help" ;;
	esac
}

_oxbow_nouns="help pool volume copy node snapshot nvme ublk attach detach attachment job events status ready version generate"

_oxbow_objects() {
	case "$1" in
	pool) [ "$2" = create ] || [ "$2" = import ] || oxbow -q pool list 2>/dev/null ;;
	volume|snapshot|nvme|attach) oxbow -q volume list 2>/dev/null ;;
	detach) oxbow -q attachment list 2>/dev/null ;;
	job) oxbow -q job list 2>/dev/null ;;
	generate) echo man bash ;;
	esac
}

_oxbow() {
	local cur="${COMP_WORDS[COMP_CWORD]}" noun="${COMP_WORDS[1]}" verb="${COMP_WORDS[2]}" words
	case "$COMP_CWORD" in
	1) words="$_oxbow_nouns" ;;
	2) words="$(_oxbow_verbs "$noun") $(_oxbow_options "$noun")"
	   [[ $noun != attach && $noun != detach ]] || words+=" $(_oxbow_objects "$noun")" ;;
	*) words="$(_oxbow_options "$noun $verb") $(_oxbow_options "$noun")"; [[ $cur == -* ]] || words="$(_oxbow_objects "$noun" "$verb")" ;;
	esac
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
	[[ ${#COMPREPLY[@]} -gt 0 || $noun != pool ]] || COMPREPLY=($(compgen -f -- "$cur"))
}
complete -F _oxbow oxbow
