/* sim_hints.c: see sim_hints.h. */
#include "sim_hints.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static struct sim_hint hints[SIM_HINTS_MAX];
static size_t hint_count;

static bool line_take(char *line)
{
	struct sim_hint hint;
	unsigned long long seed;
	int end = 0;
	line[strcspn(line, "#\n")] = '\0';
	if (line[strspn(line, " \t")] == '\0')
		return true;
	if (sscanf(line, "%u %llu %u %n", &hint.mutant, &seed, &hint.states, &end) != 3 || line[end])
		return false;
	hint.seed = seed;
	return sim_hint_set(&hint);
}

int sim_hints_load(const char *path, uint32_t *line)
{
	char text[200];
	FILE *file = fopen(path, "r");
	*line = 0;
	if (!file)
		return errno == ENOENT ? 0 : -errno;
	bool ok = true;
	while (ok && fgets(text, sizeof(text), file)) {
		++*line;
		ok = line_take(text);
	}
	int err = ferror(file) ? -EIO : ok ? 0 : -EINVAL;
	fclose(file);
	return err;
}

const struct sim_hint *sim_hint_find(uint32_t mutant)
{
	for (size_t i = 0; i < hint_count; i++)
		if (hints[i].mutant == mutant)
			return &hints[i];
	return NULL;
}

bool sim_hint_set(const struct sim_hint *hint)
{
	size_t i = 0;
	while (i < hint_count && hints[i].mutant != hint->mutant)
		i++;
	if (i == SIM_HINTS_MAX)
		return false;
	hints[i] = *hint;
	hint_count += i == hint_count ? 1 : 0;
	return true;
}

static int by_mutant(const void *a, const void *b)
{
	const struct sim_hint *x = a, *y = b;
	return x->mutant < y->mutant ? -1 : x->mutant > y->mutant;
}

int sim_hints_save(const char *path)
{
	FILE *file = fopen(path, "w");
	if (!file)
		return -errno;
	fprintf(file, "# Which seed caught a planted bug the last time: oxbow-sim-mutants [--cluster] "
		      "--mutants --hints FILE --learn\n"
		      "# mutant seed states\n");
	qsort(hints, hint_count, sizeof(hints[0]), by_mutant);
	for (size_t i = 0; i < hint_count; i++)
		fprintf(file, "%u %llu %u\n", hints[i].mutant, (unsigned long long)hints[i].seed,
			hints[i].states);
	int err = ferror(file) ? -EIO : 0;
	if (fclose(file) != 0 && !err)
		err = -errno;
	return err;
}
