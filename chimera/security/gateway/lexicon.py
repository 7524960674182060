"""Classes of words that say what a sentence does: orders, what they are about, whom they address.

The classifier sees a word's class beside the word, so that "disregard the foregoing directives" is near to "ignore the
previous instructions" although no word is the same. Words stand in their normal form (`normal.fold`): lower case, no
accents. A word that belongs to two classes counts in both.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

CLASSES: Final[dict[str, str]] = {
    "drop": "ignore ignoring disregard forget override overrule bypass neglect discard dismiss skip erase abandon "
    "cancel overlook omit void nullify pretend ignoriere ignorieren ignoriert vergiss vergessen missachte uberspringe "
    "ignorez oublie oubliez ignora ignorad olvida olvide ignorare dimentica dimenticate esqueca negeer vergeet "
    "zignoruj игнорируй игнорируйте забудь забудьте yoksay 忽略 忘记 無視 무시 تجاهل",
    "prior": "previous previously prior above earlier preceding past foregoing existing initial original former "
    "before vorherige vorherigen vorigen bisherigen bisherige obigen obige davor precedentes precedente precedenti "
    "anteriores anterior avant antes prima eerdere poprzednie предыдущие прежние 之前 以前",
    "rules": "instruction instructions directions rule rules guideline guidelines order orders command commands "
    "directive directives prompt prompts constraint constraints restriction restrictions policy policies programming "
    "guardrails assignment assignments task tasks limits limitations filter filters ethics morals censorship "
    "anweisung anweisungen regeln befehle vorgaben aufgabe aufgaben einschrankungen instructions consignes regles "
    "instrucciones ordenes reglas restricciones istruzioni regole instrucoes regras instructies regels polecenia "
    "инструкции правила указания 指令 规则 指示 지시",
    "reveal": "reveal print show repeat output display tell leak dump expose echo recite disclose share spell copy "
    "paste type return zeige zeig nenne wiederhole verrate gib sag sage repete revele montre affiche dis muestra "
    "repite revela dime mostra rivela ripeti scrivi mostre diga repita toon herhaal pokaz покажи повтори скажи "
    "显示 告诉",
    "system": "system systemprompt preprompt hidden secret secrets confidential password passwords passcode key "
    "credentials token configuration developer developers admin administrator root passwort geheim geheime mot "
    "contrasena senha пароль системный 系统 提示词 密码 システムプロンプト",
    "role": "act pretend roleplay role play simulate imagine persona character impersonate behave become called "
    "spiele finge finja fingir jouer imagina tu так",
    "free": "unrestricted unfiltered uncensored unlimited jailbreak jailbroken dan stan aim unethical immoral amoral "
    "illegal anything unbound freed refuse refuses refusal apologize apologise comply obey obeys warnings disclaimer "
    "disclaimers evil",
    "ai": "ai assistant assistants chatbot bot gpt chatgpt llm openai anthropic claude gemini copilot agent model "
    "models robot ki assistent assistente asistente ии",
    "reply": "answer answers reply replies response responses respond output outputs message antwort antworte "
    "reponse reponds respuesta responde risposta rispondi resposta ответ 回答 回复",
    "make": "write compose draft create provide generate develop prepare produce craft design make suggest outline "
    "give explain describe discuss summarize summarise analyze analyse compare define clarify list teach elaborate "
    "evaluate illustrate translate convert rewrite paraphrase solve calculate compute find recommend plan help break "
    "classify predict identify extract answer respond reply say state name schreibe schreib erklare beschreibe "
    "ubersetze fasse liste ecris explique decris traduis resume escribe explica describe traduce scrivi spiega "
    "escreva explique напиши объясни расскажи переведи 写 解释 请",
    "alter": "replace encode encrypt reverse scramble jumble misspell substitute rearrange anagram anagrams remove "
    "group combine modify change add include insert integrate append augment enhance incorporate embed mention attach "
    "render introduce format swap shift shuffle capitalize insert end begin conclude start finish",
    "push": "encourage promote persuade convince suggest advise urge recommend advertise emphasize endorse invite "
    "inform direct redirect lead trick lure stress tease",
    "send": "send forward email mail post transfer upload submit deliver exfiltrate open visit browse fetch download "
    "click delete execute run call invoke install buy pay approve confirm",
    "ask": "what who why how when where which whose can could would is are do does did will should may was wie was "
    "warum wer wann wo qui que quoi comment pourquoi quand quel quelle como cual quien por cuando come chi perche "
    "что как почему кто когда",
    "you": "you your yours yourself du dein deine deinen deiner sie ihre ihren tu ton ta tes vous votre vos tus su sus "
    "usted tuo tua voce seu sua ты твои твой вы 你 您 あなた",
    "me": "i me my mine we us our",
    "now": "now instead henceforth anymore longer onwards jetzt nun ab stattdessen maintenant desormais ahora adora "
    "agora теперь сейчас 现在 从现在开始",
    "must": "must shall always never immediately important urgent attention required mandatory only exactly whatever",
    "user": "user users customer human reader readers people visitor visitors",
    "harm": "bomb bombs explosive explosives weapon weapons gun guns meth drugs poison hack hacking hacked steal "
    "stealing stolen counterfeit forge forged kill murder stalk malware ransomware virus phish launder "
    "smuggle napalm toxic attack fraud scam crime criminal bombe waffe drogen bomba arma drogas",
    "first": "first beginning begin start started top outset initially opening anfang erste ersten debut premier "
    "premiere principio primero primera inicio primo prima 第一 最初 начало первое",
    "told": "told given gave received instructed configured programmed written wrote trained taught said provided fed "
    "shown programmiert gesagt bekommen recu recibido",
    "guard": "hide hiding withhold guard guarding keep keeping kept private forbidden banned classified protect "
    "protected sensitive internal restricted disallowed prohibited vault",
    "maker": "creator creators owner operator maker makers company boss supervisor manufacturer vendor provider staff "
    "engineer moderator auditor researcher entwickler betreiber chef createur creador",
    "end": "done over finished finish end ended enough complete completed stop cease quit halt expired obsolete "
    "outdated fertig ende genug schluss fini assez basta terminado fin хватит",
    "switch": "new another different next else change changed switch actual real true correct other neue andere "
    "nouvelle nueva nuevo новая 新",
    "exact": "exact exactly verbatim literally literal unabridged wording complete completely entire entirely full "
    "fully whole wortlaut wortlich mot palabra слово",
    "text": "text texts words message messages conversation chat session context line lines block sentence paragraph "
    "document article input review nachricht satz texte mensaje texto 文章 текст сообщение",
    "nasty": "insult rude swear racist nasty mean roast offensive vulgar cruel hateful sexist dirty beleidige insulte "
    "insulta",
    "story": "story poem song novel game scene play film fiction fictional hypothetical hypothetically scenario movie "
    "dialogue rehearsal script riddle geschichte histoire historia",
}


def _by_word() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name, words in CLASSES.items():
        for word in dict.fromkeys(words.split()):
            found[word].append(name)
    return {word: tuple(names) for word, names in found.items()}


BY_WORD: Final = _by_word()
"""The classes of each word."""
