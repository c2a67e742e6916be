/* oxbow.c: reads the command line by the table of verbs, and runs one; see oxbow.h. */
#include "oxbow.h"

#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/var/lib/oxbow/oxbow.sock"

enum { GLOBAL_HELP = 256, GLOBAL_VERSION, VERB_OPTIONS = 512 };

static const struct option global_options[] = {
	{"socket", required_argument, NULL, 's'},
	{"output", required_argument, NULL, 'o'},
	{"quiet", no_argument, NULL, 'q'},
	{"help", no_argument, NULL, GLOBAL_HELP},
	{"version", no_argument, NULL, GLOBAL_VERSION},
	{NULL, 0, NULL, 0},
};

#define GLOBAL_COUNT (ARRAY_COUNT(global_options) - 1)

/* ---- help ------------------------------------------------------------------------------------------------------------ */

static void command_print(const struct verb *v)
{
	printf("oxbow %s%s%s%s%s", v->noun, v->name ? " " : "", v->name ? v->name : "", *v->args ? " " : "",
	       v->args);
}

static void option_print(const struct option_text *o)
{
	char left[40];
	snprintf(left, sizeof(left), "%c%c%s--%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
		 o->letter ? ", " : "  ", o->name, o->metavar ? " " : "", o->metavar ? o->metavar : "");
	printf("  %-24s %s\n", left, o->help);
}

static void verb_help(const struct verb *v)
{
	printf("Usage: ");
	command_print(v);
	printf("%s\n\n%s%c%s.\n", v->options & ~v->required ? " [OPTION]..." : "", "", v->summary[0] & ~0x20,
	       v->summary + 1);
	if (v->details)
		printf("%s\n", v->details);
	if (v->options)
		printf("\n");
	for (int i = 0; i < OPT_COUNT; i++) {
		if (v->options & 1u << i)
			option_print(&option_texts[i]);
	}
}

static void summary_print(const char *noun)
{
	char left[64];
	for (size_t i = 0; i < verb_count; i++) {
		const struct verb *v = &verbs[i];
		if (noun && strcmp(noun, v->noun) != 0)
			continue;
		if (!noun && i > 0 && v->name && strcmp(verbs[i - 1].noun, v->noun) != 0)
			printf("\n");
		if (!v->name && i > 0 && verbs[i - 1].name)
			printf("\n");
		snprintf(left, sizeof(left), "%s%s%s %s", v->noun, v->name ? " " : "", v->name ? v->name : "",
			 v->args);
		printf("  %-36s %s\n", left, v->summary);
	}
}

/* Every option any of the verbs takes, once. */
static void options_summary(const char *noun)
{
	unsigned taken = 0;
	for (size_t i = 0; i < verb_count; i++)
		taken |= noun && strcmp(noun, verbs[i].noun) != 0 ? 0 : verbs[i].options;
	printf("\nOptions of these:");
	for (int i = 0; i < OPT_COUNT; i++) {
		bool told = false; /* several verbs may have options of one name */
		for (int j = 0; j < i; j++)
			told |= taken & 1u << j && strcmp(option_texts[i].name, option_texts[j].name) == 0;
		if (taken & 1u << i && !told)
			printf(" --%s", option_texts[i].name);
	}
	printf("\n");
}

static void general_help(const char *noun)
{
	printf("Usage: oxbow [-s SOCKET] [-o table|json] [-q] %s ...\n\n", noun ? noun : "NOUN VERB");
	summary_print(noun);
	options_summary(noun);
	printf("\n  -s, --socket PATH     the daemon's socket [$OXBOW_SOCKET, or " DEFAULT_SOCKET "]\n"
	       "  -o, --output FORMAT   table, or json: what the API answered\n"
	       "  -q, --quiet           lists: names only; else: nothing\n"
	       "      --help, --version\n\n"
	       "'oxbow NOUN VERB --help' tells more. A volume is named VOLUME or POOL/VOLUME, or by its "
	       "uuid.\n"
	       "Exit status: 0 done, 1 failed, 2 mistaken command, 3 no daemon reached.\n");
}

static const struct verb *verb_find(const char *noun, const char *name)
{
	for (size_t i = 0; i < verb_count; i++) {
		const struct verb *v = &verbs[i];
		if (strcmp(v->noun, noun) == 0 && (!v->name || (name && strcmp(v->name, name) == 0)))
			return v;
	}
	return NULL;
}

static bool noun_is_known(const char *noun)
{
	for (size_t i = 0; i < verb_count; i++) {
		if (strcmp(verbs[i].noun, noun) == 0)
			return true;
	}
	return false;
}

void help_print(const char *noun, const char *name)
{
	const struct verb *v = noun ? verb_find(noun, name) : NULL;
	if (noun && !noun_is_known(noun))
		fail(EXIT_USAGE, "'oxbow help' lists them", "there is no noun \"%s\"", noun);
	if (v)
		verb_help(v);
	else
		general_help(noun);
}

/* ---- options --------------------------------------------------------------------------------------------------------- */

struct parsed {
	struct cli cli;
	const char *socket_path;
	bool help;
};

static void global_take(struct parsed *p, int id, const char *value)
{
	switch (id) {
	case 's':
		p->socket_path = value;
		return;
	case 'o':
		if (strcmp(value, "json") != 0 && strcmp(value, "table") != 0)
			fail(EXIT_USAGE, "", "--output is table or json, not \"%s\"", value);
		p->cli.json = strcmp(value, "json") == 0;
		return;
	case 'q':
		p->cli.quiet = true;
		return;
	case GLOBAL_VERSION:
		printf("oxbow " OXBOW_VERSION "\n");
		exit(EXIT_DONE);
	case GLOBAL_HELP:
	case 'h':
		p->help = true;
		return;
	default:
		fprintf(stderr, "hint: oxbow --help\n");
		exit(EXIT_USAGE);
	}
}

/* The options a verb takes, beside the global ones, in getopt's form. */
static char *options_of(const struct verb *v, struct option *long_options)
{
	static char letters[64];
	size_t count = GLOBAL_COUNT;
	memcpy(long_options, global_options, sizeof(global_options));
	snprintf(letters, sizeof(letters), "hs:o:q");
	for (int i = 0; i < OPT_COUNT; i++) {
		const struct option_text *o = &option_texts[i];
		if (!(v->options & 1u << i))
			continue;
		long_options[count++] = (struct option){o->name, o->metavar ? required_argument : no_argument,
							NULL, VERB_OPTIONS + i};
		if (o->letter)
			letters[strlen(letters)] = o->letter;
	}
	long_options[count] = (struct option){0};
	return letters;
}

static int letter_option(int letter)
{
	for (int i = 0; i < OPT_COUNT; i++) {
		if (option_texts[i].letter == letter)
			return VERB_OPTIONS + i;
	}
	return letter;
}

static void verb_options_take(struct parsed *p, const struct verb *v, int argc, char **argv)
{
	struct option long_options[ARRAY_COUNT(global_options) + OPT_COUNT + 1];
	char *letters = options_of(v, long_options);
	int id;
	optind = 0;
	while ((id = getopt_long(argc, argv, letters, long_options, NULL)) != -1) {
		id = id < GLOBAL_HELP && id != '?' ? letter_option(id) : id;
		if (id >= VERB_OPTIONS)
			p->cli.values[id - VERB_OPTIONS] = optarg ? optarg : "";
		else
			global_take(p, id, optarg);
	}
	p->cli.args = argv + optind;
	p->cli.arg_count = argc - optind;
}

static void verb_usage_check(const struct parsed *p, const struct verb *v)
{
	const char *space = v->name ? " " : "", *name = v->name ? v->name : "";
	char hint[200];
	snprintf(hint, sizeof(hint), "oxbow %s%s%s %s", v->noun, space, name, v->args);
	if (p->cli.arg_count < v->min_args)
		fail(EXIT_USAGE, hint, "%s%s%s needs more", v->noun, space, name);
	if (p->cli.arg_count > v->max_args)
		fail(EXIT_USAGE, hint, "\"%s\" is too much for %s%s%s", p->cli.args[v->max_args], v->noun,
		     space, name);
	for (int i = 0; i < OPT_COUNT; i++) {
		if (v->required & 1u << i && !p->cli.values[i])
			fail(EXIT_USAGE, hint, "--%s is missing", option_texts[i].name);
	}
	for (int i = 0; i < p->cli.arg_count; i++) {
		if (!*p->cli.args[i])
			fail(EXIT_USAGE, hint, "an argument is empty");
	}
}

/* ---- main ------------------------------------------------------------------------------------------------------------ */

static int verb_run(struct parsed *p, const struct verb *v, int argc, char **argv)
{
	verb_options_take(p, v, argc, argv);
	if (p->help) {
		verb_help(v);
		return EXIT_DONE;
	}
	verb_usage_check(p, v);
	const char *from_env = getenv("OXBOW_SOCKET");
	const char *socket_path = p->socket_path	  ? p->socket_path
				  : from_env && *from_env ? from_env
							  : DEFAULT_SOCKET;
	p->cli.client = client_new(socket_path);
	int status = v->run(&p->cli);
	client_free(p->cli.client);
	return fflush(stdout) == 0 ? status : EXIT_FAILED;
}

/* A noun with an unknown verb, or without one. */
static int noun_only(const struct parsed *p, const char *noun, const char *name)
{
	if (!noun_is_known(noun))
		fail(EXIT_USAGE, "'oxbow help' lists them", "there is no noun \"%s\"", noun);
	if (p->help || !name || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
		help_print(noun, NULL);
		return name || p->help ? EXIT_DONE : EXIT_USAGE;
	}
	fail(EXIT_USAGE, "see 'oxbow help NOUN'", "\"%s\" has no verb \"%s\"", noun, name);
}

int main(int argc, char **argv)
{
	struct parsed p = {0};
	int id;
	while ((id = getopt_long(argc, argv, "+hs:o:q", global_options, NULL)) != -1)
		global_take(&p, id, optarg);
	char **words = argv + optind;
	int count = argc - optind;
	if (count == 0 || strcmp(words[0], "help") == 0) {
		help_print(count > 1 ? words[1] : NULL, count > 2 ? words[2] : NULL);
		return count || p.help ? EXIT_DONE : EXIT_USAGE;
	}
	const struct verb *v = verb_find(words[0], count > 1 ? words[1] : NULL);
	if (!v)
		return noun_only(&p, words[0], count > 1 ? words[1] : NULL);
	int used = v->name ? 1 : 0; /* getopt skips one more: it takes that for the program's name */
	return verb_run(&p, v, count - used, words + used);
}
