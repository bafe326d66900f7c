/* Whether a model brings a chat template of its own that is not of Gemma's form. */
#ifndef GM_FRONTEND_TEMPLATE_H
#define GM_FRONTEND_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

/* Does a template (Jinja) begin turns in another way than Gemma's? No where it is empty. */
bool fe_template_is_other(const char *text, size_t bytes);
/* The same of the one in a Hugging Face folder; no where there is none, or none that can be read. */
bool fe_template_other_in(const char *folder);

#endif
