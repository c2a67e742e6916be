/* oxbow_generate.c: oxbow(1) and the bash completion, from the table of verbs, so that neither can fall behind it. */
#include "oxbow.h"

#include <ctype.h>
#include <stdio.h>

/* ---- the man page ---------------------------------------------------------------------------------------------------- */

/* Text in roff: a hyphen that is to be copied is escaped, and no line may begin with a control character. */
static void roff(const char *text)
{
	for (const char *p = text; *p; p++) {
		if (*p == '-')
			fputs("\\-", stdout);
		else if (*p == '\\')
			fputs("\\e", stdout);
		else if (*p == '\'' && p == text)
			fputs("\\(aq", stdout);
		else
			putchar(*p);
	}
}

static void man_option(const struct option_text *o)
{
	printf(".TP\n.B ");
	if (o->letter)
		printf("\\-%c, ", o->letter);
	printf("\\-\\-");
	roff(o->name);
	printf("%s%s\n", o->metavar ? " " : "", o->metavar ? o->metavar : "");
	printf("%c", toupper(o->help[0]));
	roff(o->help + 1);
	printf(".\n");
}

static void man_verb(const struct verb *v)
{
	printf(".SS oxbow %s%s%s ", v->noun, v->name ? " " : "", v->name ? v->name : "");
	roff(v->args);
	printf("\n%c", toupper(v->summary[0]));
	roff(v->summary + 1);
	printf(".\n");
	if (v->details) {
		roff(v->details);
		printf("\n");
	}
	for (int i = 0; i < OPT_COUNT; i++) {
		if (v->options & 1u << i)
			man_option(&option_texts[i]);
	}
}

static void man_print(void)
{
	fputs(".TH OXBOW 1 \"\" \"Oxbow " OXBOW_VERSION "\" \"Oxbow\"\n"
	      ".SH NAME\noxbow \\- manage pools, volumes and snapshots of oxbowd\n"
	      ".SH SYNOPSIS\n.B oxbow\n[\\-s SOCKET] [\\-o table|json] [\\-q] NOUN VERB ...\n"
	      ".SH DESCRIPTION\n"
	      "oxbow asks the daemon\n.BR oxbowd (8)\nover its unix socket, as root or as a user who may "
	      "write it.\n"
	      ".PP\nA pool is named by its name or uuid. A volume is named VOLUME, POOL/VOLUME, or by its "
	      "uuid; a snapshot\n"
	      "VOLUME@SNAPSHOT, POOL/VOLUME@SNAPSHOT, or by its uuid.\n"
	      ".PP\nA command whose connection is lost is sent again, and does its work once.\n"
	      ".SH OPTIONS\n"
	      ".TP\n.B \\-s, \\-\\-socket PATH\nThe daemon's socket.\n"
	      ".TP\n.B \\-o, \\-\\-output table|json\nA table for people, or what the API answered.\n"
	      ".TP\n.B \\-q, \\-\\-quiet\nLists print names only, changes print nothing.\n"
	      ".TP\n.B \\-\\-help, \\-\\-version\nPrint that, and exit; with a noun and verb, what that "
	      "takes.\n"
	      ".SH COMMANDS\n",
	      stdout);
	for (size_t i = 0; i < verb_count; i++)
		man_verb(&verbs[i]);
	fputs(".SH ENVIRONMENT\n.TP\n.B OXBOW_SOCKET\nThe daemon's socket, unless \\-s names one. "
	      "Without either: /var/lib/oxbow/oxbow.sock.\n"
	      ".SH EXIT STATUS\n.TP\n.B 0\nDone.\n.TP\n.B 1\nIt failed, or (ready, check) the answer is no.\n"
	      ".TP\n.B 2\nThe command was mistaken.\n.TP\n.B 3\nNo daemon was reached.\n"
	      ".SH SEE ALSO\n.BR oxbowd (8),\n.BR nbdcopy (1),\n.BR qemu\\-img (1)\n",
	      stdout);
}

/* ---- bash completion ------------------------------------------------------------------------------------------------- */

static void bash_words(void)
{
	printf("_oxbow_verbs() {\n\tcase \"$1\" in\n");
	for (size_t i = 0; i < verb_count; i++) {
		bool first = i == 0 || strcmp(verbs[i - 1].noun, verbs[i].noun) != 0;
		bool last = i + 1 == verb_count || strcmp(verbs[i + 1].noun, verbs[i].noun) != 0;
		if (!verbs[i].name)
			continue;
		if (first)
			printf("\t%s) echo \"", verbs[i].noun);
		printf("%s%s", first ? "" : " ", verbs[i].name);
		if (last)
			printf("\" ;;\n");
	}
	printf("\tesac\n}\n\n");
}

static void bash_options(void)
{
	printf("_oxbow_options() {\n\tcase \"$1\" in\n");
	for (size_t i = 0; i < verb_count; i++) {
		printf("\t\"%s%s%s\") echo \"--help", verbs[i].noun, verbs[i].name ? " " : "",
		       verbs[i].name ? verbs[i].name : "");
		for (int o = 0; o < OPT_COUNT; o++) {
			if (verbs[i].options & 1u << o)
				printf(" --%s", option_texts[o].name);
		}
		printf("\" ;;\n");
	}
	printf("\tesac\n}\n\n");
}

static void bash_print(void)
{
	printf("# bash completion for oxbow(1), made by 'oxbow generate bash'\n\n");
	bash_words();
	bash_options();
	printf("_oxbow_nouns=\"help");
	for (size_t i = 0; i < verb_count; i++) {
		if (i == 0 || strcmp(verbs[i - 1].noun, verbs[i].noun) != 0)
			printf(" %s", verbs[i].noun);
	}
	fputs("\"\n\n"
	      "_oxbow_objects() {\n"
	      "\tcase \"$1\" in\n"
	      "\tpool) [ \"$2\" = create ] || [ \"$2\" = import ] || oxbow -q pool list 2>/dev/null ;;\n"
	      "\tvolume|snapshot|nvme|attach) oxbow -q volume list 2>/dev/null ;;\n"
	      "\tdetach) oxbow -q attachment list 2>/dev/null ;;\n"
	      "\tjob) oxbow -q job list 2>/dev/null ;;\n"
	      "\tgenerate) echo man bash ;;\n"
	      "\tesac\n"
	      "}\n\n"
	      "_oxbow() {\n"
	      "\tlocal cur=\"${COMP_WORDS[COMP_CWORD]}\" noun=\"${COMP_WORDS[1]}\" verb=\"${COMP_WORDS[2]}\" "
	      "words\n"
	      "\tcase \"$COMP_CWORD\" in\n"
	      "\t1) words=\"$_oxbow_nouns\" ;;\n"
	      "\t2) words=\"$(_oxbow_verbs \"$noun\") $(_oxbow_options \"$noun\")\"\n"
	      "\t   [[ $noun != attach && $noun != detach ]] || words+=\" $(_oxbow_objects \"$noun\")\" ;;\n"
	      "\t*) words=\"$(_oxbow_options \"$noun $verb\") $(_oxbow_options \"$noun\")\"; [[ $cur == -* "
	      "]] || "
	      "words=\"$(_oxbow_objects \"$noun\" \"$verb\")\" ;;\n"
	      "\tesac\n"
	      "\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
	      "\t[[ ${#COMPREPLY[@]} -gt 0 || $noun != pool ]] || COMPREPLY=($(compgen -f -- \"$cur\"))\n"
	      "}\n"
	      "complete -F _oxbow oxbow\n",
	      stdout);
}

int generate_run(struct cli *cli)
{
	if (strcmp(cli->args[0], "man") == 0)
		man_print();
	else if (strcmp(cli->args[0], "bash") == 0)
		bash_print();
	else
		fail(EXIT_USAGE, "oxbow generate man|bash", "\"%s\" is not made", cli->args[0]);
	return EXIT_DONE;
}
