-- Flat views on top of one view a stage (queries, raw_classes, rejected, query_embeddings, candidates,
-- captions, raw_leaks, scores, raw_predictions, metrics, comparisons, image_captions, raw_ranks,
-- retrieval_metrics, retrieval_comparisons), `runs`, `costs` and the macros
-- method_place, adjustment_place, set_place and trial_limit; each run's views.sql opens its own.

-- Wilson's 95 % bounds of a share p over n; `side` is -1 or 1.
create or replace macro wilson(p, n, side) as
  (p + 1.959963984540054 ** 2 / (2 * n)
   + side * 1.959963984540054 * sqrt(p * (1 - p) / n + (1.959963984540054 / (2 * n)) ** 2))
  / (1 + 1.959963984540054 ** 2 / n);

-- A method and its adjustment as people call them.
create or replace macro variant(method, adjustment) as
  trim(method || ' ' || coalesce(adjustment, ''));

-- The same under one of a run's prompt sets.
create or replace macro under(name, prompt_set) as
  name || if(prompt_set = '', '', ' under ' || prompt_set);

-- The classes, with the prompts of the run's first prompt set.
create or replace view classes as
  select * exclude (prompt_set) from raw_classes where set_place(prompt_set) = 1;

-- Each prompt of each class, of every prompt set of the run.
create or replace view class_prompts as
  select dataset, prompt_set, label, class_name, unnest(prompts) as prompt from raw_classes;

create or replace view candidates_long as
  select dataset, model, query_id, generate_subscripts(memory_ids, 1) as rank,
         unnest(memory_ids) as memory_id, unnest(memory_keys) as memory_key,
         unnest(similarities) as similarity
  from candidates;

create or replace view captions_long as
  select dataset, model, query_id, generate_subscripts(memory_ids, 1) as rank,
         unnest(memory_ids) as memory_id, unnest(memory_keys) as memory_key,
         unnest(captions) as caption, unnest(similarities) as similarity
  from captions;

create or replace view scores_long as
  select s.dataset, s.model, s.m, s.prompt_set, s.query_id, c.label, c.class_name, s.image_score, s.text_score
  from (select dataset, model, m, prompt_set, query_id, unnest(range(len(image_scores))) as label,
               unnest(image_scores) as image_score, unnest(text_scores) as text_score
        from scores) s
  join classes c using (dataset, label);

create or replace view predictions as
  select p.*, q.label, q.class_name, q.uri, coalesce(p.prediction = q.label, false) as correct
  from raw_predictions p
  join queries q using (dataset, query_id);

-- Test images that are in the memory, a row a pair.
create or replace view leaks as
  select dataset, query_id, q.uri, q.class_name, l.memory_id, l.memory_key, l.kind, l.similarity
  from raw_leaks l join queries q using (dataset, query_id);

-- Accuracy by class: n queries each, averaged over the order seeds, with Wilson's 95 % bounds.
create or replace view by_class as
  select *, greatest(0, wilson(top1, n, -1)) as ci_low, least(1, wilson(top1, n, 1)) as ci_high
  from (
    select dataset, model, method, adjustment, m, prompt_set, label, class_name,
           count(distinct query_id) as n, avg(correct::int) as top1
    from predictions
    group by all
  )
  order by dataset, model, method_place(method), method, adjustment_place(adjustment), m,
           set_place(prompt_set), label;

-- Accuracy over the order seeds: mean and standard deviation; the interval is over the queries.
-- `difference` is to `clip` on the same queries and under the same prompt set, with its paired
-- bootstrap; `p_holm` is McNemar's, corrected for all that is compared with that `clip` under the same
-- model. `oracle`: a hyper-parameter was searched on the test labels. `trial_limit`: the run's `limit`,
-- null for a run on all images.
create or replace view leaderboard_all as
  with told as (
    select dataset, model, method, adjustment, m,
           avg(top1) as top1,
           stddev_samp(top1) as top1_std,
           greatest(0, wilson(avg(top1), any_value(n), -1)) as ci_low,
           least(1, wilson(avg(top1), any_value(n), 1)) as ci_high,
           avg(top1_covered) as top1_covered,
           avg(top5) as top5,
           avg(ece) as ece,
           any_value(n) as n,
           any_value(n_covered) as n_covered,
           any_value(n_short) as n_short,
           count(seed) as seeds,
           any_value(mean_image_entropy) as mean_image_entropy,
           any_value(mean_text_entropy) as mean_text_entropy,
           any_value(hyperparameters) as hyperparameters,
           prompt_set
    from metrics
    group by dataset, model, method, adjustment, m, prompt_set
  )
  select told.*, c.difference, c.ci_low as difference_low, c.ci_high as difference_high, c.p_holm,
         cost.seconds_per_image, cost.peak_memory_mb,
         told.hyperparameters like '%"oracle"%' as oracle, trial_limit() as trial_limit
  from told
  left join costs cost
    on cost.dataset = told.dataset and cost.model = told.model and cost.method = told.method
    and cost.m is not distinct from told.m and cost.prompt_set = told.prompt_set
  left join comparisons c
    on c.dataset = told.dataset and c.model = told.model and c.method = told.method
    and c.adjustment is not distinct from told.adjustment and c.m is not distinct from told.m
    and c.baseline = 'clip'
    and c.prompt_set = told.prompt_set and c.baseline_prompt_set = told.prompt_set
  order by told.dataset, told.model,
           method_place(told.method), told.method, told.m,
           adjustment_place(told.adjustment), set_place(told.prompt_set);

-- The same without what has seen test labels.
create or replace view leaderboard as
  select * exclude (oracle) from leaderboard_all where not oracle;

-- Each hyper-parameter, and where its value comes from: `paper`, `fixed` (set before any label was
-- seen), `validation` or `oracle` (searched on the test labels).
create or replace view hyperparameters as
  select dataset, model, method, adjustment, m, key as name,
         value->>'value' as value, value->>'source' as source
  from (select distinct dataset, model, method, adjustment, m, hyperparameters from metrics) t,
       json_each(t.hyperparameters);

-- Macro averages over the datasets of the run, for runs of several; the interval combines the
-- datasets' own (Zou and Donner 2008), which are of different images and so independent.
create or replace view averages as
  select model, method, adjustment, m, prompt_set, count(*) as datasets,
         avg(top1) as top1,
         avg(top1) - sqrt(sum((top1 - ci_low) ** 2)) / count(*) as ci_low,
         avg(top1) + sqrt(sum((ci_high - top1) ** 2)) / count(*) as ci_high,
         avg(difference) as difference,
         avg(difference) - sqrt(sum((difference - difference_low) ** 2)) / count(*)
           as difference_low,
         avg(difference) + sqrt(sum((difference_high - difference) ** 2)) / count(*)
           as difference_high
  from leaderboard
  group by model, method, adjustment, m, prompt_set
  having count(*) > 1
  order by model,
           method_place(method), method, m, adjustment_place(adjustment),
           set_place(prompt_set);

-- What a probability is worth: 15 bins (low, high] of `metrics`' ECE, over all order seeds.
create or replace view reliability as
  select * from (
    select dataset, model, method, adjustment, m, prompt_set,
           least(greatest(ceil(probability * 15) - 1, 0), 14)::integer as bin,
           count(*) as answers, avg(probability order by query_id, seed) as probability, avg(correct::int) as top1
    from predictions
    where probability is not null
    group by all
  )
  order by dataset, model, method_place(method), method, adjustment_place(adjustment), m,
           set_place(prompt_set), bin;

-- Where the image and the captions disagree, and who was right.
create or replace view disagreements as
  select p.dataset, p.model, p.m, p.prompt_set, p.query_id, p.uri, p.class_name,
         image.class_name as image_says, text.class_name as captions_say,
         (p.image_prediction = p.label) as image_right,
         (p.text_prediction = p.label) as captions_right,
         p.method, p.adjustment, p.seed, p.image_weight, p.text_weight,
         p.correct as method_right
  from predictions p
  join classes image on image.dataset = p.dataset and image.label = p.image_prediction
  join classes text on text.dataset = p.dataset and text.label = p.text_prediction
  where p.image_prediction != p.text_prediction and p.image_weight is not null;

-- Mean entropy (nats) of the image's and, for each M, the captions' scores (the paper's Table 6).
create or replace view entropies as
  select dataset, model, 'image' as modality, null::integer as m, prompt_set,
         any_value(mean_image_entropy) as mean_entropy
  from metrics group by dataset, model, prompt_set
  union all
  select dataset, model, 'text', m, prompt_set, any_value(mean_text_entropy)
  from metrics where m is not null group by dataset, model, m, prompt_set
  order by all;

-- The image's weight over the captions', by who was right (the paper's Table 8): over the answers
-- whose captions have a weight above 0, of all order seeds; `excluded` counts the others.
create or replace view weight_ratios as
  with told as (
    select dataset, model, m, adjustment, prompt_set, image_weight, text_weight, query_id, seed,
           case when image_prediction = label and text_prediction != label then 'image'
                when image_prediction != label and text_prediction = label then 'captions'
                when image_prediction != label and text_prediction != label and correct
                then 'only both together' end as who_was_right
    from predictions where method = 'xmore' and text_prediction is not null
  )
  select dataset, model, m, adjustment, prompt_set, who_was_right,
         count(distinct query_id) as queries,
         count(*) filter (text_weight > 0) as answers,
         count(*) filter (not text_weight > 0) as excluded,
         avg(image_weight / text_weight order by query_id, seed) filter (text_weight > 0) as mean_ratio,
         median(image_weight / text_weight) filter (text_weight > 0) as median_ratio
  from told where who_was_right is not null
  group by all
  order by all;

-- In a retrieval dataset: where each image finds the best of its captions, and each caption its image.
create or replace view ranks as
  select r.dataset, r.model, r.direction, r.query_id, q.uri, r.caption_id, c.caption, r.rank, r.tied
  from raw_ranks r
  join queries q using (dataset, query_id)
  left join image_captions c using (dataset, caption_id); -- a packed run may lack the texts

-- Recall at k by direction and model. `difference` is to the config's first inference model on the same
-- images and captions, with its bootstrap over the images; `p_holm` is that of the sign test over the
-- images, corrected for all that is compared with that model. `trial_limit`: as in the leaderboard.
create or replace view recalls as
  select m.*, c.difference, c.ci_low as difference_low, c.ci_high as difference_high, c.p_holm,
         trial_limit() as trial_limit
  from retrieval_metrics m
  left join retrieval_comparisons c
    on c.dataset = m.dataset and c.model = m.model and c.direction = m.direction and c.k = m.k
    and c.baseline_model not in (select model from retrieval_comparisons)
  order by m.dataset, m.direction, c.p_holm is not null, m.model, m.k;
