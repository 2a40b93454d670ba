#include "source.h"

#include <inttypes.h>

#include "rng.h"

uint64_t rp_source_key(uint64_t seed, int32_t place, uint32_t site) {
    return rp_rng_key(seed, RP_PURPOSE_PAIR, (uint32_t)place * RP_SITES + site);
}

bool rp_row_has_pair(const rp_corpus *corpus, int64_t row) {
    return corpus->a.head_id[row] >= 0 && corpus->a.tail_id[row] >= 0;
}

bool rp_rows_same_text(const rp_corpus *corpus, int64_t a, int64_t b) {
    return corpus->text_hash[a] == corpus->text_hash[b];
}

bool rp_rows_same_pair(const rp_corpus *corpus, int64_t a, int64_t b) {
    const int32_t *head = corpus->a.head_id, *tail = corpus->a.tail_id;
    return rp_row_has_pair(corpus, a) && head[a] == head[b] && tail[a] == tail[b];
}

/* -- options --------------------------------------------------------------------------------------------- */

static rp_status check_number(double value, double high, const char *name) {
    if (value >= 0 && value <= high) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "%s is %g; expected 0 .. %g", name, value, high);
}

static rp_status check_count(int64_t value, int64_t high, const char *name) {
    if (value >= 1 && value <= high) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "%s is %" PRId64 "; expected 1 .. %" PRId64, name, value, high);
}

static int64_t episode_size(const rp_source_options *o) { return o->n_way * (o->k_shot + o->n_query); }

rp_status rp_source_check(const rp_source_options *o) {
    switch (o->kind) {
    case RP_SOURCE_RELATIONS:
        RP_TRY(check_count(o->count, RP_MAX_PAIRS, "pairs"));
        RP_TRY(check_count(o->pairs_per_relation, RP_MAX_PAIRS, "pairs_per_relation"));
        return check_number(o->relation_exponent, 4, "relation_exponent");
    case RP_SOURCE_ENTITIES:
        RP_TRY(check_count(o->count, RP_MAX_PAIRS, "pairs"));
        RP_TRY(check_number(o->positive_share, 1, "positive_share"));
        return check_number(o->hard_share, 1, "hard_share");
    case RP_SOURCE_INSTANCES:
        return check_count(o->count, RP_MAX_PAIRS, "sentences");
    case RP_SOURCE_EPISODES:
        RP_TRY(check_count(o->count, RP_MAX_PAIRS, "episodes"));
        RP_TRY(check_count(o->n_way, RP_MAX_PAIRS, "n_way"));
        RP_TRY(check_count(o->k_shot, RP_MAX_PAIRS, "k_shot"));
        RP_TRY(check_count(o->n_query, RP_MAX_PAIRS, "n_query"));
        return check_count(episode_size(o), RP_MAX_PAIRS, "the number of sentences of an episode");
    case RP_SOURCE_BAGS:
        RP_TRY(check_count(o->count, RP_MAX_PAIRS, "bags"));
        return check_count(o->bag_size, RP_MAX_PAIRS / o->count, "bag_size");
    default:
        return rp_fail(RP_STATUS_VALUE, "there is no kind %d of source", (int)o->kind);
    }
}

int64_t rp_source_samples(const rp_source_options *o) {
    if (o->kind == RP_SOURCE_EPISODES) return o->count * episode_size(o);
    if (o->kind == RP_SOURCE_BAGS) return o->count * o->bag_size;
    return o->kind == RP_SOURCE_INSTANCES ? o->count : 2 * o->count;
}

const char *rp_source_varies(const rp_source_options *o) {
    if (o->kind == RP_SOURCE_BAGS) return "draws bags, which differ in size";
    return o->whole_epochs ? "keeps its epochs whole" : NULL;
}

/* -- life ------------------------------------------------------------------------------------------------ */

static void plan(rp_source *s, rp_arena *arena) {
    if (s->options.kind == RP_SOURCE_RELATIONS) rp_relations_plan(&s->of.relations, arena, s->corpus);
    if (s->options.kind == RP_SOURCE_ENTITIES) rp_entities_plan(&s->of.entities, arena, s->corpus);
    if (s->options.kind == RP_SOURCE_EPISODES) rp_episode_source_plan(&s->of.episodes, arena, s->corpus);
    if (s->options.kind == RP_SOURCE_BAGS) rp_bag_source_plan(&s->of.bags, arena, s->corpus);
}

static rp_status allocate(rp_source *s) {
    rp_arena arena = {0};
    plan(s, &arena);
    RP_TRY(rp_arena_check(&arena));
    s->memory = arena.base = rp_aligned_alloc(arena.used);
    if (s->memory == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a source (%zu bytes)", arena.used);
    arena.capacity = arena.used;
    arena.used = 0;
    plan(s, &arena);
    return RP_OK;
}

static rp_status fill_instances(rp_source *s) {
    s->counts.drawable = s->corpus->a.n;
    if (s->corpus->a.n > 0) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "no sentence left: the corpus has none");
}

rp_status rp_source_init(rp_source *s, const rp_corpus *corpus, const rp_source_options *options, uint64_t seed,
                         int32_t place) {
    *s = (rp_source){.options = *options, .corpus = corpus};
    RP_TRY(allocate(s));
    switch (options->kind) {
    case RP_SOURCE_RELATIONS:
        s->of.relations.relation_key = rp_source_key(seed, place, RP_SITE_RELATION);
        s->of.relations.rows_key = rp_source_key(seed, place, RP_SITE_ROWS);
        s->of.relations.round_key = rp_source_key(seed, place, RP_SITE_ROUND);
        return rp_relations_fill(&s->of.relations, corpus, options, &s->counts);
    case RP_SOURCE_ENTITIES:
        s->of.entities.key = rp_source_key(seed, place, RP_SITE_ENTITIES);
        return rp_entities_fill(&s->of.entities, corpus, options, &s->counts);
    case RP_SOURCE_EPISODES:
        s->of.episodes.rows_key = rp_source_key(seed, place, RP_SITE_ROWS);
        return rp_episode_source_fill(&s->of.episodes, corpus, options, &s->counts,
                                      rp_source_key(seed, place, RP_SITE_EPISODES));
    case RP_SOURCE_BAGS:
        s->of.bags.key = rp_source_key(seed, place, RP_SITE_BAGS);
        s->of.bags.rows_key = rp_source_key(seed, place, RP_SITE_ROWS);
        return rp_bag_source_fill(&s->of.bags, corpus, &s->counts);
    default:
        s->of.instances = rp_source_key(seed, place, RP_SITE_EPOCH);
        return fill_instances(s);
    }
}

void rp_source_close(rp_source *s) {
    if (s->options.kind == RP_SOURCE_EPISODES) rp_episodes_free(s->of.episodes.episodes);
    rp_aligned_free(s->memory);
    *s = (rp_source){0};
}

/* -- draws ----------------------------------------------------------------------------------------------- */

bool rp_source_can_draw(const rp_source *s, int64_t row) {
    switch (s->options.kind) {
    case RP_SOURCE_RELATIONS:
        return s->of.relations.can_draw[s->corpus->a.relation[row]];
    case RP_SOURCE_ENTITIES:
        return s->of.entities.pair[row] >= 0;
    case RP_SOURCE_EPISODES:
        return s->of.episodes.can_draw[s->corpus->a.relation[row]];
    case RP_SOURCE_BAGS:
        return rp_row_has_pair(s->corpus, row);
    default:
        return true;
    }
}

size_t rp_source_scratch(const rp_source *s) {
    if (s->options.kind == RP_SOURCE_RELATIONS) return (size_t)s->of.relations.n_drawable * sizeof(rp_ticket);
    return s->options.kind == RP_SOURCE_EPISODES ? (size_t)episode_size(&s->options) * sizeof(int64_t) : 0;
}

int64_t rp_source_draw(const rp_source *s, uint32_t step, rp_draw *out, void *scratch) {
    switch (s->options.kind) {
    case RP_SOURCE_RELATIONS:
        rp_relations_draw(&s->of.relations, s->corpus, &s->options, step, out, scratch);
        break;
    case RP_SOURCE_ENTITIES:
        rp_entities_draw(&s->of.entities, s->corpus, &s->options, step, out);
        break;
    case RP_SOURCE_EPISODES:
        rp_episode_source_draw(&s->of.episodes, &s->options, step, out, scratch);
        break;
    case RP_SOURCE_BAGS:
        return rp_bag_source_draw(&s->of.bags, &s->options, step, out);
    default:
        return rp_instances_draw(s->of.instances, s->corpus, &s->options, step, out);
    }
    return rp_source_samples(&s->options);
}
