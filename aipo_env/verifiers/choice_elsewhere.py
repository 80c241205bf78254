"""How replies in other languages than English say which option they choose.

Patterns for `blanked` text, as those for English in `choice_places`; all repeats are
bounded.
"""

import re

WORD_CHAR = r"[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
"""A letter or digit of a writing that parts words by blanks, for patterns."""

_RIGHT = r"""
    (?: richtig\w{0,2} | korrekt\w{0,2} | correct[ao]? | correcte | bonne | juste
      | exacte | exact[ao] | cert[ao] | corrett?[ao] | giust[ao] | esatt[ao]
      | juist\w? | goede? | poprawn[aey] | prawidłow[aey] | верн\w{1,3} | верен
      | правильн\w{1,3} | doğru(?:dur)?
      | správn\w{1,2} | rätt | riktig\w?
      | rigtige? | đúng | chính\ xác
      | صحيحة? | الصحيحة? )
"""
_NOUN = r"""
    (?: antwort(?: möglichkeit )? | option | möglichkeit | aussage | lösung
      | alternativ[ae]
      | réponse | proposition | affirmation | lettre | opción | respuesta | letra
      | inciso | afirmación | opção | resposta | afirmação | assertiva | risposta
      | opzione
      | lettera | affermazione | antwoord | optie | bewering | odpowied[źz] | opcja
      | ответ | вариант | утверждение | відповідь | seçenek | ş\u0131k | cevap
      | yan\u0131t | đáp\ án | phương\ án | lựa\ chọn | jawaban | opsi | pilihan
      | الخيار | الإجابة | الجواب )
"""
STATED_ELSEWHERE = re.compile(
    rf"""
    (?: (?<! \w )
        (?: antwort | lösung | respuesta | réponse | reponse | risposta | resposta
          | antwoord | odpowiedź | odpověď | svar | svaret | vastaus | cevap
          | yan\u0131t
          | ответ | вариант | відповідь | απάντηση | đáp\ án | jawaban | उत्तर
          | الإجابة | الجواب )
        (?! \w )
        (?: \s (?: correcta? | correcte | correta | corretta | certa | esatta | giusta
            | juste | exacte | finale? | definitiva | poprawna | prawidłowa | správná
            | yang\ (?: benar | tepat ) | đúng | chính\ xác | الصحيحة | الصحيح ) )?
        (?:
            \s{{0,9}}
            (?: (?: ist | lautet | es | est | è | é | is | är | on | jest | to | je
                | είναι | là | adalah | هي | هو ) \b | है (?! \w )
            |   [:=–—-] )
            (?: \s (?: donc | pues | quindi | portanto | also | dus | daher | somit
                | folglich | deshalb | então | więc ) (?= \s ) )?
            \s{{0,9}} :? \s{{0,20}}
            (?: (?: la | el | a | o | il | le | die | der | das | den | de | het )
                \s (?= (?: (?-i: [(\[]? [A-Z] [)\]]? (?! \w ) )
                      | op | alt | letr | lett | buch | resp | rép | vari ) ) )?
            (?: (?: opción | opcion | opção | option | opzione | optie | alternativa
                | alternative | letra | lettre | lettera | buchstabe | respuesta
                | réponse | risposta | resposta | antwort | вариант | wariant | opsi )
                \s )?
            # cevap C'dir
        |   \s (?= (?-i: [A-Z] )
                 (?: ['’]?d[\u0131iuü]r\b | \s seçene | \s{{0,2}} है | \s ş\u0131kk ) )
        )
    |
    # La alternativa correcta es la B; die richtige Option ist B; richtig ist B
    (?<! \w )
    (?: {_NOUN} \s {_RIGHT}
      | {_RIGHT} \s {_NOUN}
      | richtig | korrekt | juist | (?: la | el ) \s correct[ao] | poprawna
      | la \s (?: bonne | corretta | certa ) )
    (?: \s (?: ist | lautet | es | est | è | é | is | jest | to | är | là | هو | هي ) \b
        (?: \s (?: donc | pues | quindi | portanto | also | daher | somit | dus ) \b )?
        \s? :?
      | \s? [:–—] )
    \s? (?: (?: la | el | a | o | il | le | die | der | das | de | het ) \s )?
    (?: {_NOUN} \s )?
    (?= (?-i: [("«]? [A-Z] [)"»]? (?! \w ) ) )
    |
    # C'est donc la réponse B; es ist also Antwort B
    (?<! \w )
    (?: c['’]est | il \s s['’]agit \s de | es \s ist | es | se \s trata \s de | è | é
      | trata-se \s d[ae] | si \s tratta \s del(?: la )? | het \s is | это ) \s
    (?: (?: donc | bien | also | daher | pues | quindi | portanto | dus | então ) \s )?
    (?: la \s | l['’] | die \s | a \s | o \s )?
    {_NOUN} \s
    (?= (?-i: [("«]? [A-Z] [)"»]? )
        (?: \s? (?: [.!,:;(–—\n] | $ )
        | \s (?: qui | que | car | denn | weil | porque | perché | che | die ) \b ) )
    |
    # Es bleibt nur Antwort D übrig; il ne reste que la D; solo queda la D
    (?<! \w )
    (?: bleibt \s (?: also \s | daher \s | somit \s )? nur (?: \s noch )?
      | reste \s (?: donc \s )? (?: plus \s )? que | s[oó]lo \s queda | queda \s s[oó]lo
      | resta \s (?: apenas | só | somente | solo ) | rimane \s solo
      | blijft \s (?: dus \s )? alleen | pozostaje \s tylko | оста[её]тся \s только )
    \s (?: (?: la | a | die | l['’] ) \s? )? (?: {_NOUN} \s )?
    (?= (?-i: [(]? [A-Z] [)]? )
        (?: \s? (?: [.!,:;(–—\n] | $ ) | \s (?: übrig | over ) \b ) )
    |
    (?: 只剩下? | 残るのは | 残りは ) \s? (?: 选项 | 選項 | 選択肢 )? \s?
    (?= (?-i: [A-Z] ) (?! \w | \s? [和与、,] ) )
    |
    # Верным является вариант C
    (?<! \w ) (?: верн | правильн ) \w{{1,3}} \s (?: ответом \s )?
    (?: является | будет ) \s (?: {_NOUN} \s )? (?= (?-i: [A-Z] ) (?! \w ) )
    |
    # Il faut choisir la réponse D
    \b (?: choisi\w{{1,4}} | reten\w{{1,4}} | elegi\w{{1,4}} | elijo | escolh\w{{1,5}}
      | assinal\w{{1,4}} | scegli\w{{1,4}} | scelgo | wählen? | wybier\w{{1,4}} ) \s
    (?: donc \s | also \s | quindi \s )? (?: la \s | l['’] | a \s | die \s )?
    {_NOUN} \s (?= (?-i: [(]? [A-Z] [)]? ) \s? (?: [.!,:;(–—\n] | $ ) )
    |
    # Letra D; Gabarito: D; chọn đáp án B
    (?: ^ | (?<= [.!] \s ) ) \s?
    (?: portanto,?\s | logo,?\s | por\ (?: lo\ )? tanto,?\s )?
    (?: a\s | la\s )? (?: letra | alternativa | opção | opción | inciso ) \s
    (?= (?-i: [(]? [A-Z] [)]? ) \s? (?: [.!:,(–—] | $ ) )
    |
    \b (?: gabarito | corrigé ) \s? [:–—] \s?
    |
    \b chọn \s (?: đáp\ án \s | phương\ án \s | câu \s )?
    (?= (?-i: [A-Z] ) (?! \w ) )
    |
    (?: 正しいのは | 正しい選択肢は | よって,? | したがって,? | 따라서
      | 그러므로 | 所以 | 因此 )
    \s? (?: 选项 | 選項 | 選択肢 )? \s?
    (?= (?-i: [A-Z] ) \s? (?: [.!。] | $ | \n | です | である | だ | 입니다 | 이다 ) )
    |
    (?: 答案 | 正解 | 答え | 정답 | 답 | 正[確确] 的? [选選] [项項] )
    \s{{0,3}} (?: 应该 | 應該 )? (?: 是 | 为 | 為 | 选 | 選 | は | 은 | 는 | 이 )?
    \s{{0,3}} :? \s{{0,20}}
    |
    (?: 应 | 應 | 故 | 所以 )? [选選] (?: 择 | 擇 )? (?! 项 | 項 )
    \s{{0,3}} :? \s{{0,9}}
    )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
"""What stands before a choice in other languages."""
VERDICT_ELSEWHERE = re.compile(
    rf"""
    (?<! {WORD_CHAR} )
    (?:
        {_NOUN} \s [(\["«]? (?P<letter> (?-i: [A-Z] ) ) [)\]"»]?
        \s (?: ist | est | es | è | é | está | jest | являет\w{{2}} | là | adalah | هو
            | هي )
        (?: \s (?: also | daher | donc | pues | quindi | portanto | więc
            | die | das | der | la | el | a | o | il | to ) ){{0,2}}
        \s {_RIGHT}
        (?: \s {_NOUN} )?
    |
        # Where no verb is needed.
        (?: ответ | вариант | утверждение | đáp\ án | phương\ án | câu | الخيار
            | الإجابة )
        \s [(]? (?P<verbless> (?-i: [A-Z] ) ) [)]?
        \s (?: верн\w{{1,3}} | верен | правильн\w{{1,3}} | đúng | صحيحة? )
    |
        (?P<bare> (?-i: [A-Z] ) ) \s (?: ist | est | es | è | é | está | jest )
        (?: \s (?: also | daher | donc | pues | quindi | portanto | więc
            | die | das | la | el | a | o ) ){{0,2}}
        \s {_RIGHT} (?: \s {_NOUN} )?
    |
        (?: ist | est | es | è | é ) \s (?: also \s | daher \s )? (?: {_NOUN} \s )?
        (?P<behind> (?-i: [A-Z] ) )
        \s (?: (?: die | das | la | el | a | o ) \s )? {_RIGHT} (?: \s {_NOUN} )?
    |
        (?: (?: antwoord | optie | bewering ) \s )?
        (?P<dutch> (?-i: [A-Z] ) ) \s is \s (?: dus \s )? (?: het \s | de \s )? juist\w?
        (?: \s (?: antwoord | optie ) )?
    |
        (?: antwoord | optie | bewering ) \s (?P<correct> (?-i: [A-Z] ) )
        \s is \s (?: dus \s )? correct
    |
        (?P<turkish> (?-i: [A-Z] ) ) (?: \s (?: ş\u0131kk\u0131 | seçeneği ) )
        (?: \s doğru (?: dur | \s (?: cevap | yan\u0131t ) (?: t\u0131r )? )? )
    )
    \s{{0,3}} (?= [.!,;:\n(–—] | $ | \b (?: denn | weil | da | car | puisque | parce
        | porque | pues | ya | ya\ que | já | pois | perché | poiché | omdat | want
        | ponieważ | bo | gdyż | çünkü | vì | karena ) \b | так | потому | поскольку )
    |
    (?: 选项 | 選項 | 選択肢 | 선택지 )? \s{{0,2}} [(]?
    (?<! {WORD_CHAR} ) (?P<asian> (?-i: [A-Z] ) ) [)]? (?: 项 | 項 | 选项 | 選項 | 번 )?
    \s? (?: は \s? 正解 | が \s? (?: 正解 | 正しい | 最も適切 | 適切 | 答え )
        | (?: 이 | 가 ) \s? (?: 정답 (?! 이 \s? 아 ) | 답 (?: 이다 | 입니다 )
            | 옳 | 맞 )
        | 是 \s? (?: 正确 | 正確 | 对的 | 答案 ) | 符合题意 | 符合題意 )
    (?! \s? (?: な | では | です?か | 吗 | 嗎 | わけ | か
        | だ? と (?! 思い | 思われ | 考え | 判断 | 分か | わか )
        | 이? \s? 라 | 인지 | 다고 | 는지 | 은지 | 지\ 않 ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""The letter of which other languages say that it is correct."""
